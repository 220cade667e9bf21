"""The embedded AttFC trainer: one step, one loop, one file format for what decides a run."""
