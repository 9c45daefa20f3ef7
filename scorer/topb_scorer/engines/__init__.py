"""Score the shards of a pool and commit them to a score log."""
