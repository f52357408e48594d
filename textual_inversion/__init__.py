"""Concepts: a new word for a diffusion model, learned from a handful of photos by textual inversion."""

from textual_inversion.config import ConceptConfig, ConceptRunConfig

__all__ = ["ConceptConfig", "ConceptRunConfig"]
