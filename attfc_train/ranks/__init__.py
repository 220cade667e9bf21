"""The processes that train together: what each holds, what they exchange, how they meet and how they end."""
