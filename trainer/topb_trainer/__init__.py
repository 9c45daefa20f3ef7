"""Trains a round of active learning on images, and exports its models as a bundle for the scorer."""
