"""The AttFC head (arXiv 2503.06839)."""
