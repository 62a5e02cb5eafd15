"""Processes that these tests look at, though they did not start them themselves."""

import psutil


def has_ended(pid: int) -> bool:
    """Return whether a process has ended, though nobody may have asked how."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
