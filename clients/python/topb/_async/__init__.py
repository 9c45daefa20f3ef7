"""The asynchronous client, from which `clients/python/generate_sync.py` generates `topb._sync`."""
