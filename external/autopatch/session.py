"""Saving one script: when, and how the process ends, and what a new one begins with."""

import inspect
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from .checkpoints import SCHEMA, Checkpoints
from .clock import Clock
from .due import Due
from .emptied_files import EmptiedFiles
from .findings import LOG, Findings
from .held_output import HeldOutput
from .ranks import Ranks
from .resumption import Resumption
from .run_journal import RunJournal
from .saved_states import SavedStates
from .settings import AGAIN, AutopatchSettings
from .stop_signal import StopSignal, end_by
from .tracker import Tracker
from .wish import Wish

if TYPE_CHECKING:
    from .held_state import HeldState
    from .place import Place


class Session:
    """The saving of the script that `tracker` follows, called `script` in checkpoints."""

    def __init__(self, settings: AutopatchSettings, tracker: Tracker, script: str) -> None:
        self.settings = settings
        self.tracker = tracker
        self.script = script
        self.findings = Findings(strict=settings.strict)
        self.optimizers: list[Any] = []
        self.place: Place
        self.resumed_at: int | None = None
        self.ranks: Ranks | None = None
        self.journal = RunJournal.of_environment()
        self.stop = StopSignal(settings.grace_seconds, self._asked_to_stop, self._too_late)
        self._checkpoints: Checkpoints
        self._states: SavedStates
        self._clock = Clock(settings.every_seconds, lambda: self._states.held_due_at, self._ask)
        self.due = Due(tracker, self._clock)
        self._begun = False
        self._aside = False
        self.held_aside: HeldState | None = None
        self._save_held_aside: Callable[[], None] | None = None
        self._trained_aside: int | None = None
        self._resumption: Resumption | None = None
        self.output = HeldOutput()
        self.emptied = EmptiedFiles(tracker)
        tracker.on_tick = self._tick
        tracker.every_steps = settings.every_steps

    def open(self) -> bool:
        """Open the store and look what is there; torch is not needed for that.

        Returns:
            Whether there is something to train: the script has not ended by itself before.

        Raises:
            BadVariable: It cannot be used, or holds something else.
        """
        self.ranks = Ranks.of_environment(self.tracker)
        self._checkpoints = Checkpoints(self.settings, self.script, self.ranks)
        self._states = SavedStates(self._checkpoints)
        if self.ranks is not None:
            self.ranks.on_lost = self.stop.end_after_grace
            self.due.ranks = self.ranks
            self.ranks.connect()
            self._checkpoints.agree()
        if self._checkpoints.is_complete:
            LOG.warning(
                "%s is complete; there is nothing to train. Set %s=1 to train it again from its "
                "beginning.",
                self.script,
                AGAIN,
            )
            if self.journal is not None:
                self.journal.complete(self._checkpoints.steps)
            return False
        return True

    def load(self) -> None:
        """Read the newest whole checkpoint, if there is one; the script is led back to it.

        Raises:
            BadVariable: It cannot be read, or is of another version of the script.
        """
        if not self._checkpoints.is_empty:
            self._resumption = Resumption(self._checkpoints, self.tracker, self.ranks)
            self.resumed_at = self._resumption.steps
            self._resumption.lead_back(self._arrived)
            self.output.hold()

    def check_source(self, key: str, checksum: str) -> None:
        """Refuse a file of the script that has changed since it was saved.

        Raises:
            BadVariable: It has.
        """
        if self._resumption is not None:
            self._resumption.check_source(key, checksum)

    def begin(self, optimizer: Any) -> None:
        """An optimizer was made: from the next loop on there is something to save."""
        if self._aside:
            return
        self.optimizers.append(optimizer)
        if not self._begun:
            self._begun = True
            if self.settings.at_exit:
                self._states.hold_from_now()
                self.stop.listen()
            self.begin_journal()
            from .place import Place

            self.place = Place(self.tracker, self.optimizers, self.findings, self.emptied)
            self.tracker.on_begin = self._first_loop
            self.tracker.due = True

    def begin_journal(self) -> None:
        """Training begins, or goes on at `resumed_at`."""
        if self.journal is not None and self.tracker.on_step is None:
            self.journal.begin(self.resumed_at or 0)
            self.tracker.on_step = self.journal.step

    def step_aside(self) -> None:
        """A framework has a loop, and a patch, of its own: nothing is saved here."""
        if self._aside:
            return
        self._aside = True
        self.tracker.live, self.tracker.due = True, False
        self.tracker.on_begin = self.tracker.way_back = None
        self.tracker.on_tick = lambda frame, number: None
        self.emptied.end()

    def begin_aside(self, save_held: Callable[[], None]) -> None:
        """A framework's Trainer trains, whose patch looks what is due, and has a `save_held`."""
        self._save_held_aside = save_held
        if not self._begun:
            self._begun = True
            if self.settings.at_exit:
                self.held_aside = self._states.hold_from_now()
                self.stop.listen()
            self.begin_journal()
        self._clock.begin()

    def trained_aside(self, steps: int, *, is_first: bool) -> None:
        """A framework's Trainer has ended; of its processes the first one marks completion."""
        if is_first or self.ranks is not None:
            self._trained_aside = (self._trained_aside or 0) + steps

    def _first_loop(self) -> None:
        self.tracker.on_begin = None
        if not self.tracker.live:
            self.tracker.due = True
        elif self.settings.at_exit:
            self.due.ask_here(Wish.HOLD)
        else:
            self.tracker.due = False
        self.place.note_constants()
        self.emptied.end()
        self._clock.begin()

    def _arrived(self) -> None:
        self.output.let_go(print_it=False)
        LOG.warning("Goes on at step %d, where it was saved.", self.tracker.steps)
        self._states.wait()
        if self.tracker.on_begin is not None:
            self._first_loop()
        self._clock.saved()

    def _ask(self, wish: Wish) -> None:
        if self.tracker.live and self._begun and not self._states.is_saving:
            self.due.ask(wish)

    def _asked_to_stop(self, number: int) -> None:
        if self.due.stopping:
            return  # it is being done
        if not self.tracker.live or not self._begun:
            end_by(number)
            return
        self.due.stop()

    def _too_late(self) -> None:
        """The grace period is over, and the main thread is wherever it waits."""
        if not self._states.is_saving:
            self._put_held()
            self._states.close()

    def _tick(self, frame: FrameType, number: int) -> None:
        if not self._begun:
            self.tracker.due = False
            return
        if frame.f_code.co_flags & inspect.CO_GENERATOR:
            return  # whoever iterates over it comes to a better place
        wish = self.due.take()
        self.done_here(wish, done=wish == Wish.NOTHING or self._do(wish, frame, number))

    def done_here(self, wish: Wish, *, done: bool = True) -> None:
        """What was due is done, or to be done elsewhere; after a stop, end."""
        self.due.settle(wish, done=done)
        if done and wish == Wish.STOP:
            self._end()

    def _do(self, wish: Wish, frame: FrameType, number: int) -> bool:
        """Hold or save the position here; returns whether that is done with."""
        began = time.monotonic()
        state = self.place.position(wish, frame, number)
        if wish == Wish.HOLD:
            done = state is not None or self.place.give_up(wish)
            self._states.hold(state, self.tracker.steps, began=began, done=done)
            return done
        if state is None:
            return False
        self._states.put(state, self.tracker.steps, complete=False)
        return True

    def _end(self) -> None:
        """End as one that was asked to, once all is durable, on every rank."""
        self._states.is_saving = True
        self._states.close()
        if self.ranks is not None:
            self.ranks.wait_for_all("saved", self.settings.grace_seconds)
        if self.journal is not None:
            self.journal.stop(self.tracker.steps, signal.Signals(signal.SIGTERM).name)
        LOG.warning("Saved at step %d; ends as asked to.", self.tracker.steps)
        self.stop.over()
        self.stop.pass_on()

    def complete(self) -> None:
        """The script has ended by itself: mark that, if it trained."""
        if not self.tracker.live:
            LOG.warning(
                "The script ended without passing where it was saved. Is it called as then?"
            )
        self.output.let_go(print_it=True)
        trained = self.tracker.steps if self._begun and self.tracker.live else 0
        if steps := self._trained_aside or trained:
            self._states.put({"schema": SCHEMA, "complete": True}, steps, complete=True)
        self._close()
        if self.journal is not None:
            self.journal.complete(self.tracker.steps)

    def fail(self) -> None:
        """The script has ended with an error: the last clean state becomes durable."""
        self.output.let_go(print_it=True)
        try:
            if self.tracker.live:
                self._put_held()
        except Exception as error:
            LOG.warning("The last clean state could not be saved after the error: %s", error)
        self._close()

    def _put_held(self) -> None:
        if self._save_held_aside is not None:
            self._save_held_aside()
        else:
            self._states.put_held()

    def _close(self) -> None:
        if self.ranks is not None:
            self.ranks.close()
        self._states.close()
        self.stop.over()


__all__ = ["Session"]
