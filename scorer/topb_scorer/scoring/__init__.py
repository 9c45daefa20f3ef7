"""How images become rows of a score log."""
