"""Data sets: the folder format, its reader, and fetchers of public data."""
