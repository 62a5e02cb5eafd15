"""Saving one script: when, into which store, how the process ends, and what a new one begins with.

A checkpoint's sidecar says {"autopatch": 1, "script": "train.py", "steps": 120, "complete": false};
its file is what `position.take` returned. When the script has ended by itself, a last checkpoint
says "complete": true.
"""

import inspect
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import TYPE_CHECKING, Any

from ..schema import UnreadableFile
from ..stores.lease_holder import holder
from ..stores.retention import Retention
from ..stores.store import Lease, Store, StoredCheckpoint, StoreError
from .findings import LOG, Findings
from .held_output import HeldOutput
from .ranks import Ranks
from .run_journal import RunJournal
from .settings import AGAIN, CONFIG, AutopatchSettings, BadVariable
from .tracker import Tracker, users_frames

if TYPE_CHECKING:
    from ..stores.saver import Saver
    from .constants import Constants

FILE = "script.ckpt"
_MOST_POSTPONED = 1000  # iterations of loops without a step
KEPT = Retention(newest=2)
SCHEMA = 1  # of the details and of positions


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
        self._constants: Constants | None = None
        self.optimizers: list[Any] = []
        self.is_complete = False
        self.resumed_at: int | None = None
        self.ranks: Ranks | None = None
        self.end_by: Callable[[int], None] = end_by
        self.journal = RunJournal.of_environment()
        self._store: Store | None = None
        self._source: Store | None = None  # of checkpoints by another number of ranks
        self._saver: Saver | None = None
        self._newest: StoredCheckpoint | None = None
        self._stop: int | None = None
        self._next = float("inf")
        self._watch: threading.Thread | None = None
        self._patience: threading.Timer | None = None
        self._previous: Any = signal.SIG_DFL
        self._begun = False
        self._aside = False
        self._postponed: tuple[int, int] | None = None
        self._held: HeldOutput | None = None
        tracker.on_tick = self._tick
        tracker.every_steps = settings.every_steps

    def open(self) -> None:
        """Open the store and look what is there; torch is not needed for that.

        Raises:
            BadVariable: It cannot be used, or holds something else.
        """
        self.ranks = Ranks.of_environment(self.tracker)
        alone, lead = self.settings, self.settings.for_rank(0)
        mine = alone if self.ranks is None else self.settings.for_rank(self.ranks.rank)
        self._store = mine.open()
        existing = self._list(self._store)
        elsewhere = alone if self.ranks is not None else lead
        for other in (lead, elsewhere):
            if other != mine and other.may_exist():
                opened = other.open()
                found = self._list(opened)
                if found and (not existing or found[-1].step > existing[-1].step):
                    existing, self._source = found, opened
        if self.settings.again:
            for each in self._list(self._store):
                self._store.delete(each.step)
            existing = []
        self._newest = existing[-1] if existing else None
        if self.ranks is not None:
            self.ranks.connect()
        self.is_complete = self._newest is not None and bool(self._newest.details["complete"])

    @property
    def completed_at(self) -> int:
        """The steps of the complete script."""
        return 0 if self._newest is None else int(self._newest.details["steps"])

    @property
    def world_size(self) -> int:
        """How many ranks train."""
        return 1 if self.ranks is None else self.ranks.world_size

    def _list(self, store: Store) -> list[StoredCheckpoint]:
        """Return what is in a store, if all of it is of this script.

        Raises:
            BadVariable: Something is not, or it cannot be read.
        """
        try:
            existing = store.list()
        except (OSError, StoreError) as error:
            raise BadVariable(f"{CONFIG} names a store that cannot be read ({error}).") from error
        foreign = [each for each in existing if each.details.get("autopatch") != SCHEMA]
        if foreign:
            raise BadVariable(
                f"{CONFIG} names a store that holds a checkpoint of something else (step "
                f"{foreign[-1].step}). Name another root."
            )
        other = [each for each in existing if each.details.get("script") != self.script]
        if other:
            raise BadVariable(
                f"{CONFIG} names a store that holds checkpoints of {other[-1].details['script']}, "
                f"not of {self.script}. Name another root."
            )
        return existing

    def load(self) -> None:
        """Read the newest whole checkpoint, if there is one; the script is led back to it."""
        if self._newest is None or self._store is None:
            return
        import torch

        from . import loader_iterators
        from .values import Decoder
        from .way_back import WayBack

        with TemporaryDirectory(prefix="curitorch-") as folder:
            found = self._fetch(Path(folder))
            if found is None:
                raise BadVariable(
                    f"{CONFIG} names a store whose checkpoints are all torn or altered. Delete "
                    "them to begin anew."
                )
            stored, path = found
            saved = torch.load(path, weights_only=True)
        if saved.get("schema") != SCHEMA:
            raise BadVariable(
                f"The checkpoint of step {stored.step} has schema {saved.get('schema')!r}, "
                f"expected {SCHEMA}. Use the curitorch that wrote it."
            )
        self._saved_sources = saved["sources"]
        for source in self.tracker.sources.values():
            self.check_source(source.key, source.checksum)
        decoder = Decoder(saved["shared"], self.tracker.may_change)
        self.resumed_at = int(saved["steps"])
        self.tracker.way_back = WayBack(self.tracker, saved, decoder, self._arrived)
        if stored.details.get("world_size") != self.world_size:
            self.tracker.way_back.ranks_before = int(stored.details.get("world_size", 1))
            self.tracker.way_back.rank = 0 if self.ranks is None else self.ranks.rank
            loader_iterators.RANKS.before = int(stored.details.get("world_size", 1))
        self.tracker.live = False
        self.tracker.due = True
        self._held = HeldOutput()

    def _fetch(self, folder: Path) -> tuple[StoredCheckpoint, Path] | None:
        """Return the newest checkpoint that can be read, here and on all other ranks."""
        assert self._store is not None
        assert self._newest is not None
        if self._newest.details.get("world_size") != self.world_size:
            return (self._source or self._store).fetch_newest_valid(FILE, folder)
        if self.ranks is None:
            return self._store.fetch_newest_valid(FILE, folder)
        found: dict[int, tuple[StoredCheckpoint, Path]] = {}
        for each in self._store.list():
            if each.details.get("world_size") != self.world_size:
                continue
            try:
                path = self._store.fetch(each, FILE, folder / str(each.step))
                found[each.step] = (each, path)
            except UnreadableFile as error:
                LOG.warning("Passed over a checkpoint: %s", error)
        common = self.ranks.common(list(found))
        return None if common is None else found[common]

    _saved_sources: dict[str, str] | None = None

    def check_source(self, key: str, checksum: str) -> None:
        """Refuse a file of the script that has changed since it was saved.

        Raises:
            BadVariable: It has.
        """
        saved = (self._saved_sources or {}).get(key)
        if saved is not None and saved != checksum:
            raise BadVariable(
                f"'{key}' has changed since it was saved at step {self.resumed_at or 0}, so that "
                f"it cannot go on there. Undo the change, name another root in {CONFIG}, or set "
                f"{AGAIN}=1 to begin anew."
            )

    @property
    def constants(self) -> "Constants":
        """The script's data, as it was before training began."""
        if self._constants is None:
            from .constants import Constants

            self._constants = Constants()
        return self._constants

    def begin(self, optimizer: Any) -> None:
        """An optimizer was made: from the next loop on there is something to save."""
        if self._aside:
            return
        self.optimizers.append(optimizer)
        if not self._begun:
            self._begun = True
            self._previous = signal.getsignal(signal.SIGTERM)
            signal.signal(signal.SIGTERM, self._asked_to_stop)
            if self.journal is not None:
                self.journal.begin(self.resumed_at or 0)
                self.tracker.on_step = self.journal.step
            self.tracker.on_begin = self._first_loop
            self.tracker.due = True

    def step_aside(self) -> None:
        """A framework has a loop, and a patch, of its own: nothing is saved here."""
        self._aside = True
        self._let_go(print_it=True)
        self.tracker.live, self.tracker.due = True, False
        self.tracker.on_begin = self.tracker.way_back = None
        self.tracker.on_tick = lambda frame, number: None

    def _first_loop(self) -> None:
        self.tracker.on_begin = None
        self.tracker.due = not self.tracker.live
        self.constants.note([*self.tracker.namespaces.values(), *self._locals()])
        if self.settings.every_seconds is not None:
            self._next = time.monotonic() + self.settings.every_seconds
            self._watch = threading.Thread(target=self._watch_clock, daemon=True)
            self._watch.start()

    def _locals(self) -> list[dict[str, Any]]:
        return [
            dict(frame.f_locals)
            for frame in users_frames(self.tracker, sys._getframe())
            if frame.f_code.co_name != "<module>"
        ]

    def _watch_clock(self) -> None:
        """Make a save due when the interval is over."""
        while True:
            left = self._next - time.monotonic()
            if left <= 0:
                if self.tracker.live and self.ranks is None:
                    self.tracker.due = True
                elif self.tracker.live and self.ranks is not None and self.ranks.rank == 0:
                    self.ranks.propose(stop=False)
                left = 0.05
            time.sleep(left)

    def _arrived(self) -> None:
        self._let_go(print_it=False)
        LOG.warning("Goes on at step %d, where it was saved.", self.tracker.steps)
        self._next = time.monotonic() + (self.settings.every_seconds or float("inf"))
        if self.tracker.on_begin is not None:
            self._first_loop()

    def _asked_to_stop(self, number: int, frame: FrameType | None) -> None:
        if self._stop is not None:
            return  # it is being done
        if not self.tracker.live or not self._begun:
            self.end_by(number)
            return
        self._stop = number
        if self.ranks is not None:
            self.ranks.propose(stop=True)
        else:
            self.tracker.due = True
        self._patience = threading.Timer(self.settings.grace_seconds, self._lose_patience)
        self._patience.daemon = True
        self._patience.start()

    def _lose_patience(self) -> None:
        LOG.warning(
            "No iteration began within %g s of SIGTERM; ends with what was saved before.",
            self.settings.grace_seconds,
        )
        os.kill(os.getpid(), signal.SIGKILL)

    def _tick(self, frame: FrameType, number: int) -> None:
        if not self._begun:
            self.tracker.due = False
            return
        if frame.f_code.co_flags & inspect.CO_GENERATOR:
            return  # whoever iterates over it comes to a better place
        if self.ranks is not None and not self.ranks.is_here():
            return
        if self.save(frame, number):
            self.tracker.due = False
            self._next = time.monotonic() + (self.settings.every_seconds or float("inf"))
            if self.ranks is not None and self.ranks.finish_round() and self._stop is None:
                self._stop = signal.SIGTERM
            if self._stop is not None:
                self._end()

    def save(self, frame: FrameType, number: int) -> bool:
        """Save the position of `frame`, in which the loop `number` begins an iteration.

        Returns:
            Whether it was saved. Where something could not go on exactly it is not, as long as
            another loop may be better; after two more steps it is saved all the same, and said.

        Raises:
            NotExact: `LATTICE_STRICT` is set, and no place is exact.
        """
        from . import position
        from .values import Encoder

        tried = Findings(strict=False, silent=True)
        encoder = Encoder(self.constants.has)
        state = position.take(self.tracker, frame, number, encoder, tried)
        position.check_made_in_loop(self.tracker, number, state, tried)
        position.check_optimizers(self.optimizers, encoder, tried)
        if not position.can_be_reached(self.tracker, state, self.findings):
            return False
        if tried.said:
            first, count = self._postponed or (self.tracker.steps, 0)
            self._postponed = (first, count + 1)
            if self.tracker.steps < first + 2 and count < _MOST_POSTPONED:
                return False
            for sentence in tried.said:
                self.findings.say(sentence)
        self._postponed = None
        self._put(state, complete=False)
        return True

    def _put(self, state: dict[str, Any], *, complete: bool) -> None:
        saver = self._saver_open()
        step = max(self.tracker.steps, 0 if self._newest is None else self._newest.step + 1)
        details = {
            "autopatch": SCHEMA,
            "script": self.script,
            "steps": self.tracker.steps,
            "complete": complete,
            "world_size": self.world_size,
        }
        saver.save(step, state, name=FILE, details=details)
        self._newest = StoredCheckpoint(step, {}, details)

    def _saver_open(self) -> "Saver":
        if self._saver is None:
            from ..stores.saver import Saver

            assert self._store is not None
            self._lease_context = self._store.lease(holder())
            lease: Lease = self._lease_context.__enter__()
            self._saver = Saver(self._store, asynchronous=True, lease=lease, retention=KEPT)
        return self._saver

    def _end(self) -> None:
        """End as one that was asked to, once all is durable, on every rank."""
        assert self._stop is not None
        self._close()
        if self.ranks is not None:
            self.ranks.wait_for_all("saved", self.settings.grace_seconds)
        if self.journal is not None:
            self.journal.stop(self.tracker.steps, signal.Signals(self._stop).name)
        LOG.warning("Saved at step %d; ends as asked to.", self.tracker.steps)
        if self._patience is not None:
            self._patience.cancel()
        if callable(self._previous):
            signal.signal(self._stop, self._previous)
            os.kill(os.getpid(), self._stop)
            return
        self.end_by(self._stop)

    def _let_go(self, *, print_it: bool) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            held.let_go(print_it=print_it)

    def complete(self) -> None:
        """The script has ended by itself: mark that, if it trained."""
        if not self.tracker.live:
            LOG.warning(
                "The script ended without passing where it was saved. Is it called as then?"
            )
        self._let_go(print_it=True)
        if self._begun and self.tracker.live and self.tracker.steps:
            self._put({"schema": SCHEMA, "complete": True}, complete=True)
        self._close()
        if self.journal is not None:
            self.journal.complete(self.tracker.steps)

    def fail(self) -> None:
        """The script has ended with an error: what is under way becomes durable."""
        self._let_go(print_it=True)
        self._close()

    def _close(self) -> None:
        if self._saver is not None:
            saver, self._saver = self._saver, None
            try:
                saver.close()
            finally:
                self._lease_context.__exit__(None, None, None)


def end_by(number: int) -> None:
    """End this process by a signal, as launchers expect of one that was sent it."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


__all__ = ["FILE", "Session", "end_by"]
