"""A store in a directory: its drafts, its lease, its files, shared where they can be."""

from .local_store import LocalStore

__all__ = ["LocalStore"]
