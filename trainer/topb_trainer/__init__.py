"""Trains a round of active learning on images, and exports the bundle that the scorer scores a pool with."""
