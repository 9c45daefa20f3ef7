"""A selection's life: its record, catalog, run and result."""
