"""Prompts: templates, the prompts drawn from them, and their splits."""
