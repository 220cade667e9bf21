"""Data set formats: RecordIO, a folder per identity, computed faces."""
