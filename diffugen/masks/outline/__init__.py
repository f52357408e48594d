"""Outliners: from an image and a prompt for one object to its mask, with a confidence."""
