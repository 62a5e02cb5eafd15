"""A leash for the workers of a DataLoader: they end with their process, killed at any moment.

torch's workers look from time to time whether the process that is their parent as they begin still
is; one whose parent was killed before that would live for ever.
"""

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from ..leash import follow_parent

_STARTING: list[int] = []
"""The process that starts workers at the moment."""


def with_workers_on_leash(make: Callable[[], Any]) -> Any:
    """Return what `make` returns, which may start workers by `fork`."""
    if threading.current_thread() is not threading.main_thread():  # a leash is held by a thread
        return make()
    _STARTING.append(os.getpid())
    try:
        return make()
    finally:
        _STARTING.clear()


def _in_child() -> None:
    if _STARTING:
        follow_parent(_STARTING[0], signal.SIGKILL)
        _STARTING.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
