"""What is measured of a round after its decisions."""
