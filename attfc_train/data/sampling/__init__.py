"""The images that a step sees: permutation, residency order, references, hashing."""
