"""The part that all learned layers share: rows of few bits that are moved without a gradient of their size."""
