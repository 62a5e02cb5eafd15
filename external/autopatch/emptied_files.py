"""Files that the script empties before its loops, and writes to in them.

A new process empties them again on its way back, so that what was written is lost. Which they are
is heard through Python's audit events, until the first loop begins.
"""

import os
import sys
from typing import Any

from .findings import Findings
from .tracker import Tracker


class EmptiedFiles:
    """Those of this process, from `listen` on."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._listens = False
        self._found: dict[str, str] = {}  # to where in the script
        self._was: dict[str, tuple[int, int]] = {}

    def listen(self) -> None:
        """Begin to hear of files; the hook stays for ever, and does nothing behind `end`."""
        self._listens = True
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._listens or event != "open":
            return
        path, mode = arguments[:2]
        if not isinstance(path, str | bytes | os.PathLike) or not isinstance(mode, str):
            return
        if "w" not in mode:
            return
        frame = sys._getframe(1)
        for _ in range(4):  # pathlib's own are between
            if frame.f_code.co_filename in self._tracker.sources:
                name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - no events of its own
                self._found[name] = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                return
            if frame.f_back is None:
                return
            frame = frame.f_back

    def end(self) -> None:
        """The first loop begins."""
        self._listens = False
        self._was = {path: _state(path) for path in self._found}

    def check(self, findings: Findings) -> None:
        """Note those that were written to since."""
        for path, where in self._found.items():
            if _state(path) != self._was.get(path):
                findings.add(
                    where,
                    f"'{path}' is emptied here, as a new process does again, and written to later",
                )


def _state(path: str) -> tuple[int, int]:
    """Return its size and the time of its last change; zeros if it is gone."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns
