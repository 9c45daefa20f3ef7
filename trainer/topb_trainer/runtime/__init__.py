"""Where and how training runs: devices, seeds, processes, progress and time."""
