"""Traces of the real train step: recorded on fake tensors, scaled, cached."""
