"""Partial FC (arXiv 2203.15565), the other baseline."""
