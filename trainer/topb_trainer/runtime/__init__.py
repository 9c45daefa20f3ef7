"""Manage devices, seeds, processes, progress bars and timing of a training run."""
