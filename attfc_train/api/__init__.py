"""For other people's programs: a trained encoder in use, and the AttFC head in a loop of one's own."""
