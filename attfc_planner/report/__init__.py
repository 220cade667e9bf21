"""``attfc-plan report``: a plan as one HTML page that needs nothing else."""
