"""Training runs as people see them: following one from its files, its curves, its tables."""
