"""What moves weights: SGD, schedules, the class encoder's momentum, numeric precision."""
