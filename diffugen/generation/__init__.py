"""Generating labelled images: batches with attention, photos, variations, and `diffugen generate`."""
