"""The DCQ head (arXiv 2105.11113)."""
