"""The formats that a user can hand in or that attfc reads back, each with its clean inputs, its use and its judge."""
