"""The training profile: the document that decides a run, as schema and as file."""
