"""Optuna studies that several workers share."""
