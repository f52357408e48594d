"""The detector: the one room that touches ultralytics."""
