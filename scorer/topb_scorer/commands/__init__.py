"""Define the scorer's subcommands of `topb`."""
