"""Models in files: every format that an encoder is written to or read from, and what each is checked for."""
