"""THE train step, the state it changes, and how both are built and undone."""
