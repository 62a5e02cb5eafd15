"""A journal that never holds up its writer: a thread writes, what finds no room is counted.

Lines of numbers are made by the thread, too, many in a row: between two steps of training, whose
caches hold other things, making one costs nearly twice as much.

A full disk, a dead file system or a lost directory are gaps in the journal, with one warning and
a `gap` event once there is room again; no line is ever torn or there twice for them.
"""

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from . import this_process
from .journal import Journal, open_for_lines, to_line

LIMIT = 8 * 2**20  # bytes of lines that wait: half a minute of steps that take a millisecond
BATCH = 1000  # lines for one write
INTERVAL = 0.1  # seconds between two writes
PATIENCE = 5.0  # seconds that `fsync` and `close` wait for a file system that does not answer

_Entry = tuple[int, Callable[..., bytes], tuple[object, ...]]
"""Roughly the bytes of a line, what makes it, and of what."""


class BackgroundJournal(Journal):
    """Appends events to a journal from a thread of its own; safe to use from several threads.

    In a process that was forked meanwhile it does nothing: the parent is the one writer.

    Args:
        path: The journal's file; it is opened by the first write.
        clock: Seconds since 1970.
        limit: How many bytes of lines may wait; more are left out and counted.

    Attributes:
        lost: How many lines were left out so far.
    """

    def __init__(
        self, path: Path, *, clock: Callable[[], float] = time.time, limit: int = LIMIT
    ) -> None:
        self.path = path
        self.lost = 0
        self._clock = clock
        self._limit = limit
        self._descriptor = -1
        self._entries: deque[_Entry] = deque()
        self._made = b""  # lines of entries that were taken out, and not written yet
        self._made_size = 0  # of these entries
        self._waiting = 0  # bytes of all of these, roughly
        self._gap = 0  # lines left out since the last one that was taken
        self._queue = threading.Lock()
        self._to_sync: list[threading.Event] = []
        self._deadline = 0.0
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._has_warned = False
        self._pid = this_process.pid

    def append(self, line: bytes, *, always: bool = False) -> None:
        """Append one line, or count it as lost if too many are waiting and it is not `always`.

        Events always have room, steps and metrics while there is some.
        """
        self._put(_entry(line), always=always)

    def append_later(self, make: Callable[..., bytes], *values: object, size: int) -> None:
        """Append the line that `make(*values)` gives in the thread, or count it as lost.

        While the thread does not keep up, lines are made here: that slows down who is so fast.
        """
        if self._waiting > self._limit // 8:
            self._put(_entry(make(*values)))
        else:
            self._put((size, make, values))

    def fsync(self) -> None:
        """Make everything written so far survive a power loss, if the disk takes it in time."""
        if self._pid != this_process.pid or self._thread is None or not self._thread.is_alive():
            return
        done = threading.Event()
        with self._queue:
            self._to_sync.append(done)
        self._wake.set()
        done.wait(PATIENCE)

    def close(self) -> None:
        """Write what is waiting, for as long as `PATIENCE`, and close the file."""
        if self._closed or self._pid != this_process.pid:
            return
        self._deadline = time.monotonic() + PATIENCE
        with self._queue:
            self._closed = True
        self._wake.set()
        if self._thread is not None:
            if self._thread.is_alive():
                self._thread.join(PATIENCE + 1)
            else:  # it could not be started any more
                self._run()
        self.lost += len(self._entries) + self._made.count(b"\n")
        if self.lost:
            _log("%d lines of the journal '%s' were left out.", self.lost, self.path)

    def _put(self, entry: _Entry, *, always: bool = False) -> None:
        if self._pid != this_process.pid:  # forked: another thread may have held the lock
            return
        with self._queue:
            if self._closed or (self._waiting > self._limit and not always):
                self.lost += 1
                self._gap += 1
                return
            if self._gap and self._waiting <= self._limit:
                self._put_gap()
            self._entries.append(entry)
            self._waiting += entry[0]
            if self._thread is None:
                name = "curitorch-journal"
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                with contextlib.suppress(RuntimeError):  # the interpreter ends: `close` writes
                    self._thread.start()

    def _put_gap(self) -> None:
        gap, self._gap = self._gap, 0
        event = {"event": "gap", "time": round(self._clock(), 6), "lost": gap}
        self._entries.append(entry := _entry(to_line(event)))
        self._waiting += entry[0]

    def _run(self) -> None:
        """Write now and then: the only one who touches the file, which may hold up for ever."""
        while True:
            self._wake.wait(INTERVAL)
            is_last = self._closed  # asked before the lines are taken: none can come after that
            if not is_last:
                self._wake.clear()
            with self._queue:
                to_sync, self._to_sync = self._to_sync, []
            is_written = self._drain(sync=bool(to_sync))
            for done in to_sync:
                done.set()
            if is_last and (is_written or time.monotonic() > self._deadline):
                break
            if is_last:
                time.sleep(INTERVAL)
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def _drain(self, *, sync: bool) -> bool:
        """Write what is waiting; returns whether all of it, and the gap if any, is in the file."""
        try:
            while self._made or self._make_lines():
                if self._descriptor < 0:
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                    self._descriptor = open_for_lines(self.path)
                self._made = self._made[os.write(self._descriptor, self._made) :]
            if sync and self._descriptor >= 0:
                os.fsync(self._descriptor)
        except OSError as error:
            self._warn(error)
            return False
        return True

    def _make_lines(self) -> bool:
        """Make the next lines, as those made before are written; returns whether there are any."""
        with self._queue:
            self._waiting -= self._made_size
            if not self._entries and self._gap:
                self._put_gap()
            entries = [self._entries.popleft() for _ in range(min(BATCH, len(self._entries)))]
            self._made_size = sum(size for size, _, _ in entries)
        self._made = b"".join([make(*values) for _, make, values in entries])
        return bool(entries)

    def _warn(self, error: OSError) -> None:
        if not self._has_warned:
            self._has_warned = True
            _log("The journal '%s' cannot be written (%s). Training goes on.", self.path, error)


def _entry(line: bytes) -> _Entry:
    return len(line), bytes, (line,)


def _log(sentence: str, *values: object) -> None:
    logging.getLogger("curitorch").warning(sentence, *values)
