"""The train step's time and memory beside the released code's way of the same step."""
