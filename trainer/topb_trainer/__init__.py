"""Learns one round of active learning on images, and exports what the scorer scores with."""
