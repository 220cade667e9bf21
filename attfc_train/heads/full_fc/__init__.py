"""The full classification layer, the baseline."""
