"""Write a trained model as a bundle that the scorer can serve."""
