"""The trainer's subcommands of `topb`."""
