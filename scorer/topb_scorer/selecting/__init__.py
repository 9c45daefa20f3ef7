"""Select ranked picks from a score log, and account for every row."""
