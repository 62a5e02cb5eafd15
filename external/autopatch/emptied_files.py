"""Files that the script empties before its loops, and writes to in them.

A new process empties them again on its way back, so that what was written is lost. Which they are
is heard from `open`, which is Python's own again once the first loop begins: an audit hook would
stay for ever, and be called for each `id` and each hash of a tensor.
"""

import os
import sys
from types import FrameType
from typing import Any

from .findings import Findings
from .tracker import Tracker

_PLACES = (
    ("builtins", "open"),
    ("io", "open"),
    ("bz2", "_builtin_open"),
    ("lzma", "_builtin_open"),
)
_DEPTH = 4  # frames of libraries between the script and `open`, such as pathlib's


class EmptiedFiles:
    """Those of this process, from `listen` on."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._replaced: list[tuple[Any, str, Any]] = []
        self._found: dict[str, str] = {}  # to where in the script
        self._was: dict[str, tuple[int, int]] = {}

    def listen(self) -> None:
        """Begin to hear of files."""
        for module, name in _PLACES:
            if (own := getattr(sys.modules.get(module), name, None)) is not None:
                setattr(sys.modules[module], name, _Open(own, self._opened))
                self._replaced.append((sys.modules[module], name, own))

    def _opened(self, path: Any, frame: FrameType | None) -> None:
        for _ in range(_DEPTH):
            if frame is None:
                return
            if frame.f_code.co_filename in self._tracker.sources:
                name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - pathlib takes longer
                self._found[name] = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                return
            frame = frame.f_back

    def end(self) -> None:
        """The first loop begins."""
        for module, name, own in self._replaced:
            if isinstance(getattr(module, name), _Open):
                setattr(module, name, own)
        self._replaced.clear()
        self._was = {path: _state(path) for path in self._found}

    def check(self, findings: Findings) -> None:
        """Note those that were written to since."""
        for path, where in self._found.items():
            if _state(path) != self._was.get(path):
                findings.add(
                    where,
                    f"'{path}' is emptied here, as a new process does again, and written to later",
                )


class _Open:
    """Python's `open`, which tells of files that it empties; no function, as `open` is none."""

    def __init__(self, own: Any, tell: Any) -> None:
        self._own = own
        self._tell = tell

    def __call__(self, file: Any, mode: Any = "r", *args: Any, **kwargs: Any) -> Any:
        """Open a file."""
        opened = self._own(file, mode, *args, **kwargs)
        if "w" in mode and isinstance(file, str | bytes | os.PathLike) and "opener" not in kwargs:
            self._tell(file, sys._getframe(1))
        return opened


def _state(path: str) -> tuple[int, int]:
    """Return its size and the time of its last change; zeros if it is gone."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns
