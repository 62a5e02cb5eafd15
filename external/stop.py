"""A stop request: SIGTERM or Ctrl-C ask the ranks to save and end, and only set a flag.

Saving inside a signal handler hangs: the other ranks are elsewhere. All ranks agree on the flag
between two optimizer steps instead (see `periodic_checkpoint`).
"""

import signal
from types import FrameType

EXIT_CODES = {"SIGTERM": 143, "SIGINT": 130}
"""How a process ends that was asked to stop and did: 128 + the signal, as shells have it."""


class TrainingStopped(SystemExit):
    """Training ended early because it was asked to; `saved` says whether with a checkpoint.

    Where nobody catches it, the process ends as one that was asked to stop: with `EXIT_CODES`.
    """

    def __init__(self, step: int, reason: str, *, saved: bool) -> None:
        super().__init__(EXIT_CODES[reason])
        self.step = step
        self.reason = reason
        self.saved = saved

    def __str__(self) -> str:
        kept = "with a checkpoint saved" if self.saved else "without a checkpoint of that step"
        return f"Stopped by {self.reason} at step {self.step}, {kept}."


class StopRequest:
    """Remembers that this process was asked to stop, and by what.

    A second Ctrl-C raises KeyboardInterrupt at once, for those who do not want to wait.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.reason: str | None = None

    def listen(self) -> None:
        """Install the handlers; call it again after a library has installed its own."""
        for number in self.SIGNALS:
            signal.signal(number, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.reason == "SIGINT":
            raise KeyboardInterrupt
        self.reason = signal.Signals(number).name
