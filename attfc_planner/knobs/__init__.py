"""What a search may turn."""
