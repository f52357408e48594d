"""Labelers: from images (and heatmaps, where there are any) to instances."""
