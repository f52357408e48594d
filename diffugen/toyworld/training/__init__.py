"""Training the toy world's networks from scratch."""
