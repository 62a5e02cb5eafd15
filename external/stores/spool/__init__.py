"""A spool before another store: saving does not wait for that one."""

from .spooling_store import SpoolingStore

__all__ = ["SpoolingStore"]
