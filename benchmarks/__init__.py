"""Measurements: every file states what it measures and writes JSON with provenance to benchmarks/results/."""
