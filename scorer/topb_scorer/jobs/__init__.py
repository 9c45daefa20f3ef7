"""Run selections as jobs, and keep their records and results."""
