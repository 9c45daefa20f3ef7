"""The networks: task model, VAE, active assistant, the networks of VAAL, and the models that score images."""
