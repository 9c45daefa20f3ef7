"""Read images and labels, and split them for an experiment."""
