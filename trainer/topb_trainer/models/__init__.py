"""The networks: task model, VAE, active assistant, and the three joined for scoring."""
