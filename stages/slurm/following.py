"""Following the jobs of runs to their end, by what they write and, now and then, by the queue."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...external.attempt import Attempt, read_attempts
from ...external.journal import JournalTail
from ...external.progress import Progress
from ...external.rundir import TrainingRun
from .job import AllocatedJob, Job, look_at
from .queue import COMES_BACK, QueuedJob, SlurmUnreachable

TICK_SECONDS = 0.25
BOOKS_SECONDS = 1.0
SETTLING_SECONDS = (0.5, 10.0)
"""How often, and how long, the queue is looked at when the job's books say that it has ended."""


@dataclass
class Followed:
    """One run whose job is followed; `state` is Slurm's last word on it, None before the first.

    Attributes:
        run: The run.
        job: Its job.
        stalled: Whether it is cancelled because no step ended.
        first: The number from which on attempts are looked at: an allocation may have had others.
    """

    run: TrainingRun
    job: Job
    first: int = 0
    progress: Progress = field(default_factory=Progress)
    state: str | None = None
    has_ended: bool = False
    stalled: bool = False
    _tail: JournalTail | None = None
    _passing: bool = False
    _said: str = ""
    _closed: int = -1

    def read(self) -> None:
        """Take in what is new in the journal."""
        if self._tail is None:
            self._tail = JournalTail(self.run.layout.journal)
            for event in self._tail.read():  # of attempts before, perhaps
                self.progress.update(event)
            self.progress.stop_reason = None
        for event in self._tail.read():
            self.progress.update(event)

    def attempt(self) -> Attempt | None:
        """Return the newest attempt of this job; None before its script began."""
        attempts = read_attempts(self.run.path)
        ours = [each for each in attempts if each.number >= self.first and each.job == self.job.id]
        return ours[-1] if ours else None

    def has_news(self) -> bool:
        """Return whether the books say that another attempt ended; a complete run has."""
        if self.run.layout.manifest.exists():
            self.has_ended = True
            return False
        attempt = self.attempt()
        if attempt is None or attempt.ended is None or attempt.number == self._closed:
            return False
        self._closed = attempt.number
        return True

    def take(self, found: QueuedJob | None) -> None:
        """Take in what the queue says; a job that it does not know has ended."""
        if found is None:
            self.has_ended = True
            return
        self.state = found.state
        waits = f" ({found.reason})" if found.state == "PENDING" and found.reason else ""
        if found.state + waits != self._said:
            self._said = found.state + waits
            logging.info("%s: %s", self.job.describe().capitalize(), self._said)
        if found.state in COMES_BACK and not self._passing:
            self._passing = True  # mostly on its way back into the queue; seen twice, it is the end
            return
        self._passing = found.state in COMES_BACK
        self.has_ended = found.has_ended


class Follower:
    """Keeps track of several runs at once, with one look at the queue for all.

    Args:
        followed: The runs.
        poll_seconds: Between two looks at the queue while nothing seems to happen.
    """

    def __init__(self, followed: Sequence[Followed], *, poll_seconds: float) -> None:
        self.followed = followed
        here = any(isinstance(each.job, AllocatedJob) for each in followed)
        self._poll_seconds = TICK_SECONDS if here else poll_seconds
        self._next_books = 0.0
        self._next_queue = 0.0
        self._settling = 0.0
        self._is_warned = False

    def has_ended(self) -> bool:
        """Bring all up to date as far as it is time to; returns whether all jobs have ended."""
        now = time.monotonic()
        going = [each for each in self.followed if not each.has_ended]
        for each in going:
            each.read()
        if now >= self._next_books:
            self._next_books = now + BOOKS_SECONDS
            news = [each.has_news() for each in going]
            if any(news):
                self._next_queue, self._settling = now, now + SETTLING_SECONDS[1]
        if now >= self._next_queue:
            self._ask(going)
            soon = now < self._settling
            self._next_queue = now + (SETTLING_SECONDS[0] if soon else self._poll_seconds)
        return all(each.has_ended for each in self.followed)

    def hurry(self, seconds: float) -> None:
        """Look at the queue often from now on: something is about to happen."""
        self._next_queue = 0.0
        self._settling = time.monotonic() + seconds

    def _ask(self, going: Sequence[Followed]) -> None:
        try:
            found = look_at([each.job for each in going if not each.has_ended])
        except SlurmUnreachable as error:
            if not self._is_warned:
                logging.warning("%s The jobs go on; the queue is asked again.", error)
            self._is_warned = True
            return
        self._is_warned = False
        for each in going:
            if each.job in found:
                each.take(found[each.job])
