"""A journal that never holds up its writer: a thread writes, what finds no room is counted.

A full disk, a dead file system or a lost directory are gaps in the journal, with one warning and
a `gap` event once there is room again; no line is ever torn or there twice for them.
"""

import contextlib
import itertools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from .journal import Journal, open_for_lines, to_line

LIMIT = 8 * 2**20  # bytes of lines that wait: half a minute of steps that take a millisecond
BATCH = 1000  # lines for one write
INTERVAL = 0.1  # seconds between two writes
PATIENCE = 5.0  # seconds that `fsync` and `close` wait for a file system that does not answer


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
        self._lines: deque[bytes] = deque()
        self._waiting = 0  # bytes in `_lines`
        self._gap = 0  # lines left out since the last one that was taken
        self._queue = threading.Lock()
        self._to_sync: list[threading.Event] = []
        self._deadline = 0.0
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._has_warned = False
        self._pid = os.getpid()

    def append(self, line: bytes, *, always: bool = False) -> None:
        """Append one line, or count it as lost if too many are waiting and it is not `always`.

        Events always have room, steps and metrics while there is some.
        """
        if self._pid != os.getpid():  # forked: the lock may be held by a thread that is not here
            return
        with self._queue:
            if self._closed or (self._waiting > self._limit and not always):
                self.lost += 1
                self._gap += 1
                return
            if self._gap and self._waiting <= self._limit:
                self._lines.append(self._gap_line())
                self._waiting += len(self._lines[-1])
            self._lines.append(line)
            self._waiting += len(line)
            if self._thread is None:
                name = "curitorch-journal"
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                with contextlib.suppress(RuntimeError):  # the interpreter ends: `close` writes
                    self._thread.start()

    def fsync(self) -> None:
        """Make everything written so far survive a power loss, if the disk takes it in time."""
        if self._pid != os.getpid() or self._thread is None or not self._thread.is_alive():
            return
        done = threading.Event()
        with self._queue:
            self._to_sync.append(done)
        self._wake.set()
        done.wait(PATIENCE)

    def close(self) -> None:
        """Write what is waiting, for as long as `PATIENCE`, and close the file."""
        if self._closed or self._pid != os.getpid():
            return
        self._deadline = time.monotonic() + PATIENCE
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            if self._thread.is_alive():
                self._thread.join(PATIENCE + 1)
            else:  # it could not be started any more
                self._run()
        if self._lines:
            self.lost += len(self._lines)
        if self.lost:
            _log("%d lines of the journal '%s' were left out.", self.lost, self.path)

    def _run(self) -> None:
        """Write now and then: the only one who touches the file, which may hold up for ever."""
        is_written = False
        while not (self._closed and (is_written or time.monotonic() > self._deadline)):
            self._wake.wait(INTERVAL)
            if not self._closed:
                self._wake.clear()
            with self._queue:
                to_sync, self._to_sync = self._to_sync, []
            is_written = self._drain(sync=bool(to_sync))
            for done in to_sync:
                done.set()
            if self._closed and not is_written:
                time.sleep(INTERVAL)
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def _drain(self, *, sync: bool) -> bool:
        """Write what is waiting; returns whether all of it, and the gap if any, is in the file."""
        try:
            while lines := self._next_lines():
                if self._descriptor < 0:
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                    self._descriptor = open_for_lines(self.path)
                self._take_out(os.write(self._descriptor, b"".join(lines)))
            if sync and self._descriptor >= 0:
                os.fsync(self._descriptor)
        except OSError as error:
            self._warn(error)
            return False
        return True

    def _next_lines(self) -> list[bytes]:
        with self._queue:
            if not self._lines and self._gap:
                self._lines.append(self._gap_line())
                self._waiting += len(self._lines[-1])
            return list(itertools.islice(self._lines, BATCH))

    def _take_out(self, written: int) -> None:
        """Forget the first `written` bytes that wait; the rest of a line stays to be written."""
        with self._queue:
            self._waiting -= written
            while written:
                line = self._lines.popleft()
                if len(line) > written:
                    self._lines.appendleft(line[written:])
                    break
                written -= len(line)

    def _gap_line(self) -> bytes:
        gap, self._gap = self._gap, 0
        return to_line({"event": "gap", "time": round(self._clock(), 6), "lost": gap})

    def _warn(self, error: OSError) -> None:
        if not self._has_warned:
            self._has_warned = True
            _log("The journal '%s' cannot be written (%s). Training goes on.", self.path, error)


def _log(sentence: str, *values: object) -> None:
    logging.getLogger("curitorch").warning(sentence, *values)
