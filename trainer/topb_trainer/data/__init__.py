"""Training images in memory: how they are read, labelled and split."""
