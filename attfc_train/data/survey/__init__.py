"""Data sets before training: what is in them, and what would hurt."""
