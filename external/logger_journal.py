"""The journal that a logger writes to: one that it was given, a script's session's, or its own."""

import os
import platform
import weakref
from pathlib import Path
from typing import Any

from .background_journal import BackgroundJournal
from .journal import Journal, read_journal
from .layout import Layout
from .sdk import api
from .sdk.environment import place
from .sdk.journal_reporter import JournalReporter
from .sdk.session import Session


class LoggerJournal:
    """Opened with the first event, by the process that writes it; use it on rank 0 only.

    Args:
        run: The run directory.
        is_stages: Whether it is that of the stage that launched this process: then the script may
            have opened the journal, by the SDK, and events wait until that is known.

    Attributes:
        session: Takes metrics and steps; None before `open`.
    """

    def __init__(self, run: Path, *, is_stages: bool) -> None:
        self.run = run
        self.session: Session | None = None
        self._is_stages = is_stages
        self._journal: Journal | None = None
        self._is_own = True
        self._number: int | None = None  # of the newest attempt
        self._pid = os.getpid()
        self._waiting: list[tuple[str, dict[str, Any]]] = []
        self._written: dict[str, dict[str, Any]] = {}

    def join(self, journal: Journal) -> None:
        """Write to `journal`, in which somebody else began this attempt, and which they close."""
        self._journal, self._is_own = journal, False
        self.session = Session(JournalReporter(journal))

    @property
    def is_own(self) -> bool:
        """Whether nobody else writes attempts and the end of this process's training."""
        return self._is_own

    @property
    def is_scripts(self) -> bool:
        """Whether the session is the script's, which counts the steps by itself."""
        return self.session is not None and self.session is api.current()

    @property
    def lost(self) -> int:
        """How many lines found no room so far."""
        return self._journal.lost if isinstance(self._journal, BackgroundJournal) else 0

    def open(self) -> Journal:
        """Return the open journal; what waited for it is written.

        Raises:
            UnreadableFile: A newer curitorch wrote what is there.
        """
        if self._pid != os.getpid():  # forked: the parent's thread is not here
            self._pid, self._journal, self.session = os.getpid(), None, None
        if self._journal is None:
            users = api.current() if self._is_stages else None
            if users is not None and isinstance(users.reporter, JournalReporter):
                self._journal, self.session, self._is_own = users.reporter.journal, users, False
            else:
                own = self._journal = BackgroundJournal(Layout(self.run).journal)
                weakref.finalize(self, own.close)  # at exit, if not before
                self.session = Session(JournalReporter(own))
                self._number = _newest_attempt(own.path)
        waiting, self._waiting = self._waiting, []
        for event, details in waiting:
            self._journal.write(event, **details)
        return self._journal

    def begin_attempt(self, step: int, *, world_size: int = 1, only_first: bool = False) -> None:
        """Begin an attempt that goes on after `step`, unless somebody else does that.

        Args:
            step: What earlier attempts did after it no longer counts.
            world_size: Processes that train.
            only_first: Not if the journal has an attempt.
        """
        journal = self.open()
        if self._is_own and not (only_first and self._number is not None):
            stages = place().attempt if self._is_stages else None
            following = 0 if self._number is None else self._number + 1
            self._number = following if stages is None else stages
            journal.attempt(
                self._number, resume_step=step, world_size=world_size, host=platform.node()
            )

    def write(self, event: str, **details: Any) -> None:
        """Write an event, now or when it is known to whom the journal belongs."""
        if self._is_stages and self._journal is None and api.current() is None:
            self._waiting.append((event, details))
        else:
            self.open().write(event, **details)

    def write_once(self, event: str, **details: Any) -> None:
        """Write it unless that is what was written last: `fit` and `test` begin with the same."""
        if self._written.get(event) != details:
            self._written[event] = details
            self.write(event, **details)

    def __getstate__(self) -> dict[str, Any]:
        """In another process it is opened anew."""
        return {**self.__dict__, "session": None, "_journal": None, "_pid": -1}


def _newest_attempt(path: Path) -> int | None:
    """Return the number of the newest attempt in a journal; None if there is none to be read."""
    try:
        events = read_journal(path)
    except OSError:
        return None
    return max(
        (int(each["attempt"]) for each in events if each["event"] == "attempt"), default=None
    )
