"""Which images a step sees: permutation, residency order, references, hashing."""
