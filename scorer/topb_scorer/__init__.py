"""Scores pools of unlabelled images with exported models, and selects the b most worth labelling."""
