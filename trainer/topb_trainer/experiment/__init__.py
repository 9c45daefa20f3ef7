"""Compare methods by the protocol of the paper, with durable records."""
