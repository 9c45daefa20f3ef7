"""The trainer's commands of `topb`."""
