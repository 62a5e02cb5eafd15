"""SIGTERM: the state is saved at the next iteration, or the process dies of it after a while.

Python's handler runs between two byte codes of the main thread, which may wait for ever inside of a
collective whose other ranks are dead. So the grace period is counted by a thread that hears of the
signal through the wake-up pipe, as it arrives; it ends the process by the signal itself.
"""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from .findings import LOG

_LAST_WORDS = 5.0  # seconds for what is done at the end of the grace period


class StopSignal:
    """The SIGTERM of this process, from `listen` on.

    Args:
        grace: Seconds from the signal to the end of the process, if nobody calls `over`.
        asked: Called in the main thread when the signal arrives.
        too_late: Called in a thread when the grace period is over; the process ends then.
    """

    def __init__(
        self, grace: float, asked: Callable[[int], None], too_late: Callable[[], None]
    ) -> None:
        self.grace = grace
        self.previous: Any = signal.SIG_DFL
        self._asked = asked
        self._too_late = too_late
        self._over = threading.Event()
        self._counting = threading.Lock()
        self._handler = self._handle
        self._before = -1  # somebody's wake-up file descriptor

    def listen(self) -> None:
        """Install the handler; a process forked from this one has none."""
        self.previous = signal.getsignal(signal.SIGTERM)
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        self._before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._handler)
        threading.Thread(target=self._hear, args=(reading,), daemon=True).start()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        if signal.getsignal(signal.SIGTERM) is self._handler:
            signal.signal(signal.SIGTERM, self.previous or signal.SIG_DFL)
            signal.set_wakeup_fd(-1)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._asked(number)

    def _hear(self, reading: int) -> None:
        while True:
            word = os.read(reading, 1)
            if self._before >= 0:
                os.write(self._before, word)
            if word == bytes([signal.SIGTERM]) and signal.getsignal(signal.SIGTERM) == (
                self._handler
            ):
                threading.Thread(target=self.end_after_grace, daemon=True).start()

    def end_after_grace(self) -> None:
        """Wait for the grace period, then end the process by SIGTERM; returns if it is `over`."""
        if not self._counting.acquire(blocking=False) or self._over.wait(self.grace):
            return
        LOG.warning(
            "In %g s after this process was to end no iteration began, nor did a save end (does "
            "it wait for another rank?); it ends with what was saved before.",
            self.grace,
        )
        last = threading.Thread(target=self._too_late, daemon=True)
        last.start()
        last.join(_LAST_WORDS)
        die_of(signal.SIGTERM)

    def over(self) -> None:
        """The process ends by itself: nothing is counted any more, and SIGTERM is as before."""
        self._over.set()
        if signal.getsignal(signal.SIGTERM) is self._handler:
            signal.signal(signal.SIGTERM, self.previous or signal.SIG_DFL)

    def pass_on(self) -> None:
        """Give the signal to the handler before this one, or die of it; in the main thread."""
        if callable(self.previous):
            os.kill(os.getpid(), signal.SIGTERM)
            return
        end_by(signal.SIGTERM)


def end_by(number: int) -> None:
    """End this process by a signal, as launchers expect of one that was sent it."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def die_of(number: int) -> None:
    """End this process by a signal from any thread, whatever the main thread waits for."""
    ctypes.CDLL(None).signal(number, None)  # signal.signal is for the main thread only
    os.kill(os.getpid(), number)
