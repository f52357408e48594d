"""JSON configs: the strict loader, its error messages, and the settings of generating and labelling."""
