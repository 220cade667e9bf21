"""The search for the best plan; only study.py imports optuna."""
