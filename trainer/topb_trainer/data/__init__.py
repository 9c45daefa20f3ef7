"""Read images and labels into memory, and split them for an experiment."""
