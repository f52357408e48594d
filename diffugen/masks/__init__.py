"""Masks: thresholds, refinement, graph cuts, scores, matching and consensus."""
