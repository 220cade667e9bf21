"""Classification heads, one folder a kind: settings free of torch beside the head."""
