"""The last clean state, in memory: what an exception, or a rank that hangs, leaves to be saved.

A copy is taken as often as it costs a hundredth of the time; it needs as much memory as a
checkpoint, and is not taken where that is more than a quarter of what is free.
"""

import time
from pathlib import Path
from typing import Any

import torch

from .findings import LOG

_SHARE = 100  # of the time that a copy takes, between two of them
_LEAST = 0.5  # seconds
_MOST_OF_FREE = 0.25


class HeldState:
    """Holds one state; `due_at` is when the next is to be taken, by `time.monotonic`."""

    def __init__(self) -> None:
        self.due_at = 0.0
        self._state: dict[str, Any] | None = None
        self._steps = -1
        self._spent = 0.0

    def hold(self, state: dict[str, Any], steps: int) -> None:
        """Copy a state of so many steps."""
        self._state = None  # its memory may be used again
        if _bytes(state) > _MOST_OF_FREE * _free():
            LOG.info("Too little memory is free to hold the last state for an exception.")
            self.due_at = float("inf")
            return
        self._state, self._steps = copied(state), steps

    def spend(self, seconds: float) -> None:
        """Take note of what looking for a place to copy at, or copying, has cost."""
        self._spent += seconds

    def wait(self) -> None:
        """Let the next be due so much later that what was spent is little."""
        self.due_at = time.monotonic() + max(_LEAST, _SHARE * self._spent)
        self._spent = 0.0

    def take(self, newer_than: int) -> tuple[dict[str, Any], int] | None:
        """Return the state and its steps, once, if they are more than `newer_than`."""
        state, self._state = self._state, None
        return (state, self._steps) if state is not None and self._steps > newer_than else None


def copied(value: Any) -> Any:
    """Return a copy on the CPU of the tensors in containers, and everything else as it is."""
    if isinstance(value, torch.Tensor):
        return value.to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: copied(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copied(each) for each in value)
    return value


def _bytes(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, dict):
        return sum(_bytes(each) for each in value.values())
    return sum(_bytes(each) for each in value) if isinstance(value, list | tuple) else 0


def _free() -> float:
    """Return the bytes that may be used without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    [line] = [each for each in lines if each.startswith("MemAvailable:")]
    return float(line.split()[1]) * 1024
