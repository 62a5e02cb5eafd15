"""The lock of a run directory: one trainer at a time; who is refused learns who holds it."""

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from .atomic import write_json
from .layout import Layout


class RunLocked(RuntimeError):
    """Somebody else is training in this run directory; the message names the holder."""


class RunLock:
    """A lock that the operating system releases when its holder dies, however it dies.

    Args:
        run: The run directory; it is created if it is not there.
        wait_seconds: How long to wait for another holder; None waits without limit.
        on_wait: Called with one sentence when waiting begins and every 30 s from then on.
    """

    def __init__(
        self,
        run: Path,
        *,
        wait_seconds: float | None = 0,
        on_wait: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.run = run
        self.wait_seconds = wait_seconds
        self.on_wait = on_wait
        self._holder = run / "lock-holder.json"
        run.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(Layout(run).lock, mode=0o666)

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            RunLocked: Another process held it for longer than `wait_seconds`.
        """
        started = time.monotonic()
        patience = 0.0  # of the first try: who waits is told so at once
        while True:
            left = None
            if self.wait_seconds is not None:
                left = max(0.0, started + self.wait_seconds - time.monotonic())
            try:
                self._lock.acquire(timeout=patience if left is None else min(patience, left))
                break
            except Timeout:
                sentence = f"'{self.run}' is being trained by {self._describe_holder()}."
                if left is not None and time.monotonic() - started >= (self.wait_seconds or 0):
                    raise RunLocked(
                        f"{sentence} Wait for it to end, or use another run directory."
                    ) from None
                self.on_wait(f"{sentence} Waiting for it to end.")
                patience = 30.0
        record = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%F %T")}
        try:
            write_json(self._holder, record)
        except OSError:  # a full disk
            self._lock.release()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._holder.unlink(missing_ok=True)
        self._lock.release()

    def _describe_holder(self) -> str:
        try:
            record = json.loads(self._holder.read_text(encoding="utf-8"))
            return f"process {record['pid']} on {record['host']} since {record['since']}"
        except (OSError, ValueError, KeyError):
            return "another process"
