"""Verification protocols and embeddings."""
