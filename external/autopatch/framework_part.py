"""The part of the store that one Trainer of a framework has, and what the session learns of it.

A script may have several Trainers: the first one's part is `lightning`, the next `lightning-1`.
"""

import itertools
from collections.abc import Iterator
from typing import Any

from ..stores.store import Store
from .findings import LOG
from .settings import AutopatchSettings


class FrameworkPart:
    """One Trainer's; see `several`."""

    def __init__(self, name: str, settings: AutopatchSettings, session: Any) -> None:
        self.name = name
        self.is_used = False
        self._settings = settings.for_part(name)
        self._session = session

    @classmethod
    def several(
        cls, framework: str, settings: AutopatchSettings, session: Any
    ) -> "Iterator[FrameworkPart]":
        """Return the parts of a script's Trainers, in the order in which it makes them.

        If there is a checkpoint to go on from, what the script prints until it is there was
        printed before.
        """
        if not settings.again and settings.for_part(framework).may_exist():
            with settings.for_part(framework).open() as store:
                if store.list():
                    session.output.hold()
        numbers = itertools.count()
        return (
            cls(framework if number == 0 else f"{framework}-{number}", settings, session)
            for number in numbers
        )

    def open(self) -> Store:
        """Open the store."""
        return self._settings.open()

    def begin(self, rank: int) -> None:
        """The Trainer is about to train; delete what there is, if that was asked for."""
        if self._settings.again and not self.is_used and rank == 0:
            with self.open() as store:
                for each in store.list():
                    store.delete(each.step)
        if self.is_used:
            self._session.findings.add(
                self.name, "one Trainer trains twice; an interruption goes back into its first time"
            )

    def trains(self) -> None:
        """Training begins; what is to be gone on from is known."""
        self._session.begin_journal()

    def stopped(self, step: int, reason: str) -> None:
        """The process ends as it was asked to, with all saved."""
        if self._session.journal is not None:
            self._session.journal.stop(step, reason)

    def goes_on(self, step: int) -> None:
        """A checkpoint was found."""
        LOG.warning("Goes on at step %d, where it was saved.", step)
        self._session.tracker.steps = self._session.resumed_at = step

    def arrived(self) -> None:
        """It is there, and prints again."""
        self._session.output.let_go(print_it=False)

    def ended(self, steps: int, rank: int) -> None:
        """The Trainer has ended, in whichever way; nothing is held back any more."""
        self.is_used = True
        self._session.output.let_go(print_it=False)
        self._session.trained_aside(steps, is_first=rank == 0)
