"""The stages of a tuning: real steps, short trainings, finals."""
