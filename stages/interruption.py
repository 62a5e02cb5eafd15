"""SIGINT and SIGTERM to an experiment whose trainers run: remembered at once, passed on later."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Self


class Interruption:
    """Remembers a signal while trainers are given time to save, then lets it do what it does.

    Only the main thread can take signals; in another one this does nothing.
    """

    def __init__(self) -> None:
        self.number: signal.Signals | None = None
        self._again = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def wait(self, seconds: float, *, until: Callable[[], bool]) -> None:
        """Wait for `until` up to `seconds`; a second signal ends the wait."""
        deadline = time.monotonic() + seconds
        while not until() and time.monotonic() < deadline and not self._again:
            time.sleep(0.05)

    def pass_on(self) -> None:
        """Let the signal end this process, if there was one: call it when all is put away.

        Raises:
            KeyboardInterrupt: It was SIGINT.
            SystemExit: It was SIGTERM, and a handler of the user's let this process live.
        """
        if self.number is None:
            return
        if self.number == signal.SIGINT:
            raise KeyboardInterrupt("Training was stopped; the same command goes on.")
        logging.shutdown()
        sys.stdout.flush()
        os.kill(os.getpid(), self.number)
        raise SystemExit(128 + self.number)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._again = self.number is not None
        self.number = self.number or signal.Signals(number)
