"""The plan: request, search, choice, best.json, launch."""
