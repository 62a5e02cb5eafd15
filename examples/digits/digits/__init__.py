"""What the trainer processes import: the model and its data."""
