"""Labelled datasets: reading, writing and converting formats."""
