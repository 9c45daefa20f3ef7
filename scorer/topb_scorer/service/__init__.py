"""The gRPC skin: request in, core call, response out."""
