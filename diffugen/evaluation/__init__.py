"""Measuring labels and detectors against ground truth."""
