"""The blocking client. All modules but `transport` are generated from `topb._async`."""
