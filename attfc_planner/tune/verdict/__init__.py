"""From the trials of all stages to one setting."""
