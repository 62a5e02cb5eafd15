"""The place to save at: the next iteration that can go on exactly, or else one that cannot."""

import sys
from types import FrameType
from typing import Any

from .constants import Constants
from .emptied_files import EmptiedFiles
from .encoder import Encoder
from .findings import Findings
from .position import can_be_reached, check_made_in_loop, check_optimizers, check_threads, take
from .tracker import Tracker, users_frames
from .wish import Wish

_MOST_POSTPONED = {Wish.HOLD: 20, Wish.SAVE: 1000, Wish.STOP: 1000}  # iterations without a step


class Place:
    """Looks at the places where an iteration begins while something is due.

    Args:
        tracker: Of the script.
        optimizers: All that were made.
        findings: What cannot be exact is said to them, if there is no better place.
        emptied: Files that are part of what can be lost.
    """

    def __init__(
        self,
        tracker: Tracker,
        optimizers: list[Any],
        findings: Findings,
        emptied: EmptiedFiles,
    ) -> None:
        self._emptied = emptied
        self._tracker = tracker
        self._optimizers = optimizers
        self._findings = findings
        self._constants = Constants()
        self._postponed: tuple[int, int] | None = None  # since which step, how often

    def note_constants(self) -> None:
        """Training begins: large data of the script is what it is."""
        own = [
            dict(frame.f_locals)
            for frame in users_frames(self._tracker, sys._getframe())
            if frame.f_code.co_name != "<module>"
        ]
        self._constants.note([*self._tracker.namespaces.values(), *own])

    def give_up(self, wish: Wish) -> bool:
        """Return whether so many places were no good that another time will do."""
        if self._postponed is None or self._postponed[1] < _MOST_POSTPONED[wish]:
            return False
        self._postponed = None
        return True

    def position(self, wish: Wish, frame: FrameType, number: int) -> dict[str, Any] | None:
        """Return the position of `frame`, in which the loop `number` begins an iteration.

        Returns:
            None where something could not go on exactly, as long as another loop may be better;
            after two more steps it is given all the same, and said.

        Raises:
            NotExact: `LATTICE_STRICT` is set, and no place is exact.
        """
        tried = Findings(strict=False, silent=True)
        encoder = Encoder(self._constants.has, self._tracker.may_change)
        state = take(self._tracker, frame, number, encoder, tried)
        check_made_in_loop(self._tracker, number, state, tried)
        check_threads(self._tracker, tried)
        self._emptied.check(tried)
        check_optimizers(self._optimizers, encoder, tried)
        silent = Findings(strict=False, silent=True)  # a copy can be taken somewhere else
        told = silent if wish == Wish.HOLD else self._findings
        reachable = can_be_reached(self._tracker, state, told)
        if tried.said or not reachable:
            first, count = self._postponed or (self._tracker.steps, 0)
            self._postponed = (first, count + 1)
            if not reachable:
                return None
            if self._tracker.steps < first + 2 and (
                wish == Wish.HOLD or count < _MOST_POSTPONED[wish]
            ):
                return None
            for sentence in tried.said:
                self._findings.say(sentence)
        self._postponed = None
        return state
