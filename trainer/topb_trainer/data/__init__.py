"""Reads images and labels into memory, and splits them for an experiment."""
