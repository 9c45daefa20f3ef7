"""The life of a selection: its record in the catalog, its runs, and its result."""
