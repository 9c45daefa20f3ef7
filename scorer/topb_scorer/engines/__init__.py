"""Engines fill a score log from the shards of a pool."""
