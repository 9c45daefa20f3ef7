"""Serve selections over gRPC: translate requests, call the core, and translate results and errors back."""
