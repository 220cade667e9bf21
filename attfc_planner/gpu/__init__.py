"""GPUs: what is there, what it can do, what is known of cards that are not there."""
