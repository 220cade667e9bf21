"""The F2C head (arXiv 2105.10375)."""
