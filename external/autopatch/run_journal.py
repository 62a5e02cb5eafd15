"""What a stage that launched the script learns of it: steps, its end, through the run's journal."""

import time

from ..environment import launched, ranks
from ..journal import Journal
from ..layout import Layout

_SECONDS = 0.5


class RunJournal:
    """Writes a step at most twice a second; use `of_environment`."""

    def __init__(self, journal: Journal, attempt: int) -> None:
        self._journal = journal
        self._attempt = attempt
        self._next = 0.0

    @classmethod
    def of_environment(cls) -> "RunJournal | None":
        """Return rank 0's journal of the run that a stage has launched; else None."""
        launch = launched()
        if launch is None or ranks().rank:
            return None
        return cls(Journal(Layout(launch.run).journal), launch.attempt)

    def begin(self, step: int) -> None:
        """Training begins, or goes on after `step`."""
        self._journal.attempt(self._attempt, resume_step=step, world_size=ranks().world_size)

    def step(self, step: int) -> None:
        """A step has ended."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _SECONDS
            self._journal.write("step", step=step, epoch=None)

    def stop(self, step: int, reason: str) -> None:
        """The process ends as it was asked to."""
        self._journal.write("stop", step=step, reason=reason)
        self._journal.fsync()

    def complete(self, step: int) -> None:
        """The script has ended by itself."""
        self._journal.write("step", step=step, epoch=None)
        self._journal.write("complete", step=step, epoch=None, sdk=True)
        self._journal.fsync()
