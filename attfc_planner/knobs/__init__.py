"""The knobs that a search may turn, and the recipe's rules for them."""
