"""Turns an experiment's records into tables and figures, never a mean without its n."""
