"""Exact nearest-neighbour mathematics: distances, ties, labelled search and k-center."""
