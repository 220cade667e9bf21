"""Calibration: real train steps on the device that is here, and what they teach."""
