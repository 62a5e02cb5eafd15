"""The user's parameter sets."""
