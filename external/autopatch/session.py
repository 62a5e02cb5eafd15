"""Saving one script: when, and how the process ends, and what a new one begins with."""

import inspect
import signal
import time
from types import FrameType
from typing import TYPE_CHECKING, Any

from .checkpoints import SCHEMA, Checkpoints
from .clock import Clock
from .due import Due
from .findings import LOG, Findings
from .held_output import HeldOutput
from .ranks import Ranks
from .run_journal import RunJournal
from .settings import AGAIN, CONFIG, AutopatchSettings, BadVariable
from .stop_signal import StopSignal, end_by
from .tracker import Tracker
from .wish import Wish

if TYPE_CHECKING:
    from .held_state import HeldState
    from .place import Place


class Session:
    """The saving of one script, from before it is imported until its process ends.

    Args:
        settings: What the variables say.
        tracker: Of the script.
        script: Its name in the sidecars.

    Raises:
        BadVariable: The store cannot be used, or holds something else.
    """

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
        self._held: HeldState | None = None
        self._clock = Clock(settings.every_seconds, self._held_due_at, self._ask)
        self.due = Due(tracker, self._clock)
        self._saving = False
        self._begun = False
        self._aside = False
        self._trained_aside: int | None = None
        self._output: HeldOutput | None = None
        self._saved_sources: dict[str, str] = {}
        tracker.on_tick = self._tick
        tracker.every_steps = settings.every_steps

    def open(self) -> None:
        """Open the store and look what is there; torch is not needed for that.

        Raises:
            BadVariable: It cannot be used, or holds something else.
        """
        self.ranks = Ranks.of_environment(self.tracker)
        self._checkpoints = Checkpoints(self.settings, self.script, self.ranks)
        if self.ranks is not None:
            self.ranks.on_lost = self._lost
            self.due.ranks = self.ranks
            self.ranks.connect()

    @property
    def is_complete(self) -> bool:
        """Whether the script has ended by itself, before this process."""
        return self._checkpoints.is_complete

    @property
    def completed_at(self) -> int:
        """The steps of the complete script."""
        return self._checkpoints.steps

    def load(self) -> None:
        """Read the newest whole checkpoint, if there is one; the script is led back to it."""
        if self._checkpoints.is_empty:
            return
        from . import loader_iterators
        from .decoder import Decoder
        from .way_back import WayBack

        stored, saved = self._checkpoints.read()
        self._saved_sources = saved["sources"]
        self.resumed_at = int(saved["steps"])
        for source in self.tracker.sources.values():
            self.check_source(source.key, source.checksum)
        decoder = Decoder(saved["shared"], self.tracker.may_change)
        way_back = WayBack(self.tracker, saved, decoder, self._arrived)
        ranks_before = int(stored.details.get("world_size", 1))
        if ranks_before != self._checkpoints.world_size:
            way_back.ranks_before = loader_iterators.RANKS.before = ranks_before
            way_back.rank = 0 if self.ranks is None else self.ranks.rank
        self.tracker.way_back = way_back
        self.tracker.live = False
        self.tracker.due = True
        self.hold_output()

    def check_source(self, key: str, checksum: str) -> None:
        """Refuse a file of the script that has changed since it was saved.

        Raises:
            BadVariable: It has.
        """
        saved = self._saved_sources.get(key)
        if saved is not None and saved != checksum:
            raise BadVariable(
                f"'{key}' has changed since it was saved at step {self.resumed_at or 0}, so that "
                f"it cannot go on there. Undo the change, name another root in {CONFIG}, or set "
                f"{AGAIN}=1 to begin anew."
            )

    def begin(self, optimizer: Any) -> None:
        """An optimizer was made: from the next loop on there is something to save."""
        if self._aside:
            return
        self.optimizers.append(optimizer)
        if not self._begun:
            self._begun = True
            if self.settings.at_exit:
                from .held_state import HeldState

                self._held = HeldState()
                self.stop.listen()
            self.begin_journal()
            from .place import Place

            self.place = Place(self.tracker, self.optimizers, self.findings)
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

    def begin_aside(self) -> None:
        """A framework's Trainer trains, whose patch looks what is due."""
        if not self._begun:
            self._begun = True
            if self.settings.at_exit:
                self.stop.listen()
            self.begin_journal()
        self._clock.begin()

    def hold_output(self) -> None:
        """What the script prints until it is where it was saved was printed before."""
        if self._output is None:
            self._output = HeldOutput()

    def let_go(self, *, print_it: bool) -> None:
        """Print what was held back, or forget it; what is printed from now on is printed."""
        if self._output is not None:
            held, self._output = self._output, None
            held.let_go(print_it=print_it)

    def trained_aside(self, steps: int, *, is_first: bool) -> None:
        """A framework's Trainer has ended; of its processes the first one marks completion."""
        if is_first or self.ranks is not None:
            self._trained_aside = (self._trained_aside or 0) + steps

    def _first_loop(self) -> None:
        self.tracker.on_begin = None
        if not self.tracker.live:
            self.tracker.due = True
        elif self._held is not None:
            self.due.ask_here(Wish.HOLD)
        else:
            self.tracker.due = False
        self.place.note_constants()
        self._clock.begin()

    def _held_due_at(self) -> float:
        return float("inf") if self._held is None else self._held.due_at

    def _arrived(self) -> None:
        self.let_go(print_it=False)
        LOG.warning("Goes on at step %d, where it was saved.", self.tracker.steps)
        if self._held is not None:
            self._held.wait()
        if self.tracker.on_begin is not None:
            self._first_loop()
        self._clock.saved()

    # What is asked for.

    def _ask(self, wish: Wish) -> None:
        if self.tracker.live and self._begun and not self._saving:
            self.due.ask(wish)

    def _asked_to_stop(self, number: int) -> None:
        if self.due.stopping:
            return  # it is being done
        if not self.tracker.live or not self._begun:
            end_by(number)
            return
        self.due.stop()

    def _lost(self) -> None:
        """The launcher is gone: ranks cannot agree on anything, and nobody waits for this one."""
        LOG.warning(
            "The launcher of these ranks has ended without them. They cannot agree on a step to "
            "save at; this one ends in %g s, with what was saved before.",
            self.settings.grace_seconds,
        )
        self.stop.end_after_grace()

    def _too_late(self) -> None:
        """The grace period is over, and the main thread is wherever it waits."""
        what = "the save under way had not ended" if self._saving else "no iteration began"
        LOG.warning(
            "In %g s after it was asked to end %s (does it wait for another rank?); ends with "
            "what was saved before.",
            self.settings.grace_seconds,
            what,
        )
        if not self._saving:
            self._put_held()
            self._checkpoints.close()

    # Saving.

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
            assert self._held is not None
            if state is not None:
                self._held.hold(state, self.tracker.steps)
            self._held.spend(time.monotonic() - began)
            if state is None and not self.place.give_up(wish):
                return False
            self._held.wait()
            return True
        if state is None:
            return False
        self._put(state, self.tracker.steps, complete=False)
        return True

    def _put(self, state: dict[str, Any], steps: int, *, complete: bool) -> None:
        self._saving = True
        try:
            self._checkpoints.put(state, steps=steps, complete=complete)
        finally:
            self._saving = False

    def _put_held(self) -> None:
        """Save the last clean state, if it is newer than what is saved."""
        held = None if self._held is None else self._held.take(self._checkpoints.steps)
        if held is not None:
            self._put(*held, complete=False)
            LOG.warning("Saved the last clean state, of step %d.", held[1])

    # The end.

    def _end(self) -> None:
        """End as one that was asked to, once all is durable, on every rank."""
        self._saving = True
        self._checkpoints.close()
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
        self.let_go(print_it=True)
        trained = self.tracker.steps if self._begun and self.tracker.live else 0
        if steps := self._trained_aside or trained:
            self._put({"schema": SCHEMA, "complete": True}, steps, complete=True)
        self._close()
        if self.journal is not None:
            self.journal.complete(self.tracker.steps)

    def fail(self) -> None:
        """The script has ended with an error: the last clean state becomes durable."""
        self.let_go(print_it=True)
        try:
            if self.tracker.live:
                self._put_held()
        except Exception as error:
            LOG.warning("The last clean state could not be saved after the error: %s", error)
        self._close()

    def _close(self) -> None:
        if self.ranks is not None:
            self.ranks.close()
        self._checkpoints.close()
        self.stop.over()


__all__ = ["Session"]
