"""Compute exact distances, nearest labelled rows and k-center greedy picks."""
