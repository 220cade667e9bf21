"""Margin softmax losses."""
