"""What the rewritten statements call: where the script is, whether a save is due, and the way back.

`live` is False only while a saved position is being reached again; `due` is True only when a save
is wanted, or a position is being reached. So a step that is neither costs nothing but look-ups.
"""

import itertools
import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from . import iterators
from .rewriting import ANY, LOOP
from .source import Source, Statement

if TYPE_CHECKING:
    from .way_back import WayBack


class Tracker:
    """Knows the rewritten files of this process, and what their statements are doing."""

    def __init__(self) -> None:
        self.live = True
        self.due = False
        self.sources: dict[str, Source] = {}
        self.namespaces: dict[str, dict[str, Any]] = {}  # by the source's key
        self.statements: list[Statement] = []
        self.trained: set[int] = set()
        self.steps = 0
        self.every_steps: int | None = None
        self.counted = False  # whether so many steps are over
        self.way_back: WayBack | None = None
        self.on_tick: Callable[[FrameType, int], None] = lambda frame, number: None
        self.on_begin: Callable[[], None] | None = None
        self.on_step: Callable[[int], None] | None = None
        self._thread = threading.get_ident()
        self._seen: dict[tuple[int, int], CodeType] = {}  # a code's own hash takes long

    # Called by the rewritten statements.

    def run(self, number: int) -> bool:
        """Return whether a statement is to be run, on the way back."""
        way_back = self._way_back()
        return way_back is None or way_back.is_to_run(self.statements[number], sys._getframe(1))

    def way(self, number: int) -> bool | None:
        """Return which branch the way back takes; None if it does not lead through here."""
        way_back = self._way_back()
        return (
            None if way_back is None else way_back.branch(self.statements[number], sys._getframe(1))
        )

    def track(self, iterable: Any, number: int) -> iterators.Loop:
        """Return the loop over `iterable`: at its beginning, or where it was saved."""
        way_back = self._way_back()
        if way_back is not None:
            loop = way_back.loop(iterable, self.statements[number], sys._getframe(1))
            if loop is not None:
                return loop
        if self.on_begin is not None:
            self.on_begin()
        return iterators.begin(iterable, _take_generators)

    def tick(self, number: int) -> None:
        """An iteration of a loop begins: save, or go on from here."""
        if threading.get_ident() != self._thread:
            return
        frame = sys._getframe(1)
        way_back = self._way_back()
        if way_back is not None:
            way_back.arrive(self.statements[number], frame)
            return
        if self.on_begin is not None:
            self.on_begin()
        self.on_tick(frame, number)

    def _way_back(self) -> "WayBack | None":
        if self.live or threading.get_ident() != self._thread:
            return None
        return self.way_back

    # Called by the rest of the package.

    def stepped(self) -> None:
        """Note that an optimizer has made a step, and which statements it was in."""
        self.steps += 1
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            code = frame.f_code
            if code.co_filename in self.sources and (id(code), frame.f_lasti) not in self._seen:
                self._seen[id(code), frame.f_lasti] = code
                statement = self.statement_at(frame)
                if statement is not None:
                    self.trained.update(each.number for each in statement.chain())
            frame = frame.f_back
        if self.on_step is not None and self.live:
            self.on_step(self.steps)
        if self.every_steps is not None and self.steps % self.every_steps == 0 and self.live:
            self.counted = self.due = True

    def may_change(self, attribute: str) -> bool:
        """Return whether some function of the user's but a constructor sets such an attribute."""
        return any(
            attribute in source.attributes or ANY in source.attributes
            for source in self.sources.values()
        )

    def statement_at(self, frame: FrameType) -> Statement | None:
        """Return the innermost statement that a frame is in."""
        place = place_of(frame)
        source = self.sources[frame.f_code.co_filename]
        return None if place is None else source.innermost(frame.f_code, place[0], place[1])

    def identity(self, number: int) -> str:
        """Return what a statement is called in checkpoints."""
        source = self.statements[number].source
        assert source is not None
        return f"{source.key}:{number - source.statements[0].number}"

    def number(self, identity: str) -> int | None:
        """Return the number here of a statement in a checkpoint, if its file is loaded."""
        key, _, index = identity.rpartition(":")
        for source in self.sources.values():
            if source.key == key:
                return source.statements[int(index)].number
        return None


def _take_generators() -> Any:
    if "torch" not in sys.modules:
        return None
    from . import generators

    return generators.take_cpu()


def place_of(frame: FrameType) -> list[int] | None:
    """Return line, column, last line and last column of what a frame is evaluating."""
    instruction = max(0, frame.f_lasti) // 2
    found = next(itertools.islice(frame.f_code.co_positions(), instruction, None))
    if found[0] is None or found[2] is None:
        return None
    return [int(found[0]), int(found[2]), int(found[1] or 0), int(found[3] or 0)]


def users_frames(tracker: Tracker, frame: FrameType | None) -> list[FrameType]:
    """Return the frames of rewritten code from `frame` outwards."""
    found = []
    while frame is not None:
        if frame.f_code.co_filename in tracker.sources:
            found.append(frame)
        frame = frame.f_back
    return found


def loop_in(frame: FrameType, number: int) -> iterators.Loop | None:
    """Return the loop that the statement `number` runs in `frame`."""
    found = frame.f_locals.get(f"{LOOP}{number}")
    return found if isinstance(found, iterators.Loop) else None


def is_users_generator(tracker: Tracker, generator: Any) -> bool:
    """Return whether a generator's code was rewritten, so that its position can be known."""
    code = generator.gi_code
    return code.co_filename in tracker.sources and not code.co_name.startswith("<")
