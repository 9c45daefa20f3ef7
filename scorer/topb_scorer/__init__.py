"""Score pools of unlabelled images with exported models, and select the b images most worth labelling."""
