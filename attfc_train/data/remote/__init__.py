"""Data behind URLs: object storage and web servers, read through a bounded cache on the local disk."""
