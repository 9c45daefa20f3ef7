"""Train a round of active learning on images, and export its models as a bundle for the scorer."""
