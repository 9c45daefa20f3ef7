"""The scorer's subcommands of `topb`."""
