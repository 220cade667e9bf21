"""Peak memory of a profile: replay of its trace, tables for what no trace sees."""
