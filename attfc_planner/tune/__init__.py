"""``attfc-plan tune``: the plan's search again, with real steps and short trainings on the user's own data."""
