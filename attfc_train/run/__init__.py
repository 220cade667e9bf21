"""A run: the loop, what it records and saves, and what it does when memory runs out."""
