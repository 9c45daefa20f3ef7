"""The gRPC server. It translates requests, calls the core, and translates results and errors back."""
