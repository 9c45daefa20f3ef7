"""The scorer's part of the `topb` command."""
