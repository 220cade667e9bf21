"""Images per second, from operators' costs over a device's ceilings."""
