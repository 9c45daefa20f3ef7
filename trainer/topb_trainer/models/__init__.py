"""The networks: task model, VAE, active assistant, those of VAAL, and the graphs that score images."""
