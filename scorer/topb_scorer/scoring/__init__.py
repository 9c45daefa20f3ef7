"""Scoring: from images to the rows of a score log."""
