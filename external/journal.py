r"""The journal of a run: `journal.jsonl`, one JSON object per line, appended by rank 0 only.

    {"schema": 1, "event": "attempt", "time": 1763719200.1, "attempt": 1, "resume_step": 120, …}
    {"event": "step", "time": 1763719201.5, "step": 121, "epoch": 4, "seconds": 0.031}
    {"event": "metric", "time": 1763719201.5, "step": 121, "epoch": 4, "metrics": {"loss": 0.25}}
    {"event": "checkpoint", "time": 1763719209.0, "step": 150, "epoch": 5, "bytes": 90210}
    {"event": "gap", "time": 1763719208.2, "lost": 37}
    {"event": "hyperparameters", "time": 1763719200.1, "values": {"lr": 0.1}}
    {"event": "model", "time": 1763719200.1, "type": "Net", "parameters": 650, "layers": […], …}
    {"event": "engine", "time": 1763719200.4, "name": "lean"}
    {"event": "stop", "time": 1763719209.1, "step": 150, "reason": "SIGTERM"}
    {"event": "complete", "time": 1763719260.9, "step": 240, "epoch": 8}

Each line is one `write` to a file opened for appending, so that a reader never meets half a line
in the middle: only the last one can be torn, by a full disk or a power loss, and readers leave
it out. `time` is seconds since 1970; `seconds` is what a step took; `epoch` is null where the
trainer does not tell; a gap says how many lines found no room before it. The files that Lightning
saves by itself are `checkpoint` events with a `file`, and `kept` events (see `saved_files`); a
logger without a job around it ends with `{"event": "end", "status": "success"}`. NaN and
infinities are written as the strings "NaN", "Infinity" and "-Infinity", so that every line is
valid JSON.
"""

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from .schema import check_schema

SCHEMA = 1
FILE_NAME = "journal.jsonl"

_ENCODER = json.JSONEncoder(allow_nan=False)
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

Event = dict[str, Any]


class Journal:
    """Appends events to a journal; one writer at a time, any number of readers.

    Opening it closes a torn last line, so that the first event of a new attempt stands alone.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._clock = clock
        self._descriptor = open_for_lines(path)

    def attempt(self, number: int, *, resume_step: int, **details: object) -> None:
        """Open attempt `number`; steps after `resume_step` of earlier attempts no longer count."""
        self.write("attempt", schema=SCHEMA, attempt=number, resume_step=resume_step, **details)

    def write(self, event: str, **details: object) -> None:
        """Append one event.

        Raises:
            OSError: The line could not be written whole (a full disk).
        """
        line = to_line({"event": event, "time": round(self._clock(), 6), **details})
        self.append(line, always=True)

    def append(self, line: bytes, *, always: bool = False) -> None:
        """Append one line; where lines may have to be left out, not this one if `always`.

        Raises:
            OSError: The line could not be written whole (a full disk).
        """
        written = os.write(self._descriptor, line)
        if written != len(line):
            raise OSError(f"'{self.path}': only {written} of {len(line)} bytes fit on the disk.")

    def append_later(self, make: Callable[..., bytes], *values: object, size: int) -> None:
        """Append the line that `make(*values)` gives, here at once, elsewhere in another thread.

        Args:
            make: Raises nothing for these values.
            values: Nobody changes them afterwards.
            size: How many bytes the line has, roughly.
        """
        self.append(make(*values))

    def fsync(self) -> None:
        """Make everything written so far survive a power loss."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file; nothing can be written afterwards."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class JournalTail:
    """Reads a journal while it grows: each `read()` returns the whole lines that are new."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def read(self) -> list[Event]:
        """Return the events appended since the last call; empty if the file does not exist yet."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            return []
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        return list(_parse(whole.splitlines(), self.path))


def read_journal(path: Path) -> list[Event]:
    """Return all events in the order written; a torn line is left out. Empty without a file.

    Raises:
        UnreadableFile: The journal was written by a newer curitorch.
    """
    return JournalTail(path).read()


def merged(events: Iterable[Event]) -> list[Event]:
    """Return the events of one uninterrupted history: what a later attempt did again is left out.

    When an attempt resumed from step N, the events of earlier attempts with a step above N are
    dropped, so that every step stands exactly once. Events without a step are kept.
    """
    history: list[Event] = []
    for event in events:
        if event["event"] == "attempt":
            resume_step = int(event["resume_step"])
            history = [old for old in history if int(old.get("step", 0)) <= resume_step]
        history.append(event)
    return history


def to_line(record: Mapping[str, object]) -> bytes:
    """Return `record` as one line of valid JSON.

    Raises:
        TypeError, ValueError: It holds what JSON has no form for, or itself.
    """
    try:
        text = _ENCODER.encode(record)
    except ValueError:  # not finite
        text = _ENCODER.encode(_plain(record))
    return text.encode() + b"\n"


def open_for_lines(path: Path) -> int:
    """Open `path` for appending whole lines, each by one write; a torn last line is closed."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            os.write(descriptor, b"\n")
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _parse(lines: Iterable[bytes], path: Path) -> Iterator[Event]:
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:  # the torn last line of an attempt that was killed
            continue
        if not isinstance(record, dict) or "event" not in record:
            continue
        if record["event"] == "attempt":
            check_schema(record, where=f"'{path}'", newest=SCHEMA)
        if "metrics" in record:
            record["metrics"] = {
                name: _NOT_FINITE.get(value, value) if isinstance(value, str) else value
                for name, value in record["metrics"].items()
            }
        yield record


def _plain(value: object) -> object:
    """Return `value` as valid JSON: not-finite floats become the strings of `_NOT_FINITE`."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, dict):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value
