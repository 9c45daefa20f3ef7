"""Selecting: from a score log to ranked picks with accounts."""
