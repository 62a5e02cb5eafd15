"""Training states on their way into a store: staged, written in the background, shared."""
