"""The dynamic class container: slots, their storage, resizing, health and staleness."""
