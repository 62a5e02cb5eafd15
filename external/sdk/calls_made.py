"""Which ranks have called for an upload, and what each of them saw: said in files that all see.

    <folder>/step-120-rank-1.json   {"checkpoint.pt": [90210, 1763719201500000000, 4711]}
    <folder>/rank-1.closed          this rank will not call again

A call's file is there until rank 0 has taken what it speaks of.
"""

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from .emergency import put_whole
from .saved_files import State

POLL = 0.02  # seconds between two looks for what other ranks say
PATIENCE = 30.0  # seconds that rank 0 waits for another rank to call
LAST_WAIT = 600.0  # seconds that a rank waits at its end until rank 0 has taken the last upload


class CallsMade:
    """The ranks' calls in `folder`, which rank 0 waits for up to `patience` seconds each."""

    def __init__(self, folder: Path, *, patience: float = PATIENCE) -> None:
        self._folder = folder
        self._patience = patience

    def say(self, step: int, rank: int, seen: Mapping[str, State]) -> None:
        """Say that `rank` has called for `step`, and which files it saw in which state."""
        with contextlib.suppress(OSError):  # a full disk: rank 0 will miss it, and says so
            put_whole(self._call(step, rank), seen)

    def say_closed(self, rank: int) -> None:
        """Say that `rank` will not call again."""
        with contextlib.suppress(OSError):
            put_whole(self._closed(rank), {})

    def seen(self, step: int, rank: int) -> dict[str, State] | None:
        """Return what `rank` saw when it called, once it has; None if it does not call."""
        deadline = time.monotonic() + self._patience
        while True:
            is_closed = self._closed(rank).exists()  # looked at before the call, which comes first
            try:
                record = json.loads(self._call(step, rank).read_text(encoding="utf-8"))
                return {name: (s[0], s[1], s[2]) for name, s in record.items()}
            except (FileNotFoundError, ValueError):
                if is_closed or time.monotonic() > deadline:
                    return None
            time.sleep(POLL)

    def take(self, step: int, ranks: int) -> None:
        """Let the ranks know that what they called for is taken, or lost."""
        for rank in range(ranks):
            with contextlib.suppress(OSError):
                self._call(step, rank).unlink(missing_ok=True)

    def wait_until_taken(self, step: int, rank: int, is_pressed: Callable[[], bool]) -> None:
        """Wait until rank 0 has taken what `rank` called for, or has ended, or `is_pressed`."""
        deadline = time.monotonic() + LAST_WAIT
        while (
            self._call(step, rank).exists()
            and not self._closed(0).exists()
            and not is_pressed()
            and time.monotonic() < deadline
        ):
            time.sleep(POLL)

    def _call(self, step: int, rank: int) -> Path:
        return self._folder / f"step-{step}-rank-{rank}.json"

    def _closed(self, rank: int) -> Path:
        return self._folder / f"rank-{rank}.closed"
