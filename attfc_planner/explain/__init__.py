"""Explanations of a profile's memory, the change that each knob makes, and how many identities fit."""
