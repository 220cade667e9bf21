"""Accuracy of a setting: the prior from published tables, and the regression over trainings."""
