"""A new generator of the user's function, led to the `yield` at which the saved one stood."""

import inspect
import weakref
from types import FrameType
from typing import TYPE_CHECKING, Any

from .generator_decoder import GeneratorDecoder
from .source import Statement
from .values import Mismatch, is_restorable
from .variables_back import assign, decoded
from .way_back import CannotResume, WayBack

if TYPE_CHECKING:
    from .tracker import Tracker


_LED: "weakref.WeakSet[Any]" = weakref.WeakSet()


class WayIntoGenerator(WayBack):
    """Leads one generator; it is there when the statement with its `yield` begins."""

    def __init__(self, tracker: "Tracker", entry: dict[str, Any], frame: FrameType) -> None:
        saved = {"entries": [entry], "modules": {}, "trained": []}
        outer = tracker.way_back
        assert outer is not None  # a generator is led on the way of the script
        self._values: GeneratorDecoder = (
            outer._values if isinstance(outer, WayIntoGenerator) else GeneratorDecoder(outer)
        )
        super().__init__(tracker, saved, self._values)
        self.frames.append(frame)

    def is_to_run(self, statement: Statement, frame: FrameType) -> bool:
        """As on the other way; at the last statement all variables get their values."""
        if frame is self.frames[0] and statement.number == self._chain(0)[-1].number:
            own = self.saved["entries"][0]["variables"]
            try:
                assign(frame, decoded(self.decoder, own, dict(frame.f_locals), set(own)), own)
            except Mismatch as error:
                raise CannotResume(
                    f"The generator {frame.f_code.co_qualname} does not come to where it was: "
                    f"{error}. Use another root to begin anew."
                ) from error
            self.tracker.live = True
            return True
        return super().is_to_run(statement, frame)

    def _needs_no_object(self, node: Any) -> bool:
        return is_restorable(node, self._values.knows)

    def arrive(self, statement: Statement, frame: FrameType) -> None:
        """An iteration of one of its loops begins."""
        if frame is self.frames[0]:
            self._restore_early(0, frame)


def advance(tracker: "Tracker", generator: Any, node: dict[str, Any]) -> Any:
    """Lead `generator`, which has not begun, to where `node` says; returns what it gave last."""
    if node["state"] == inspect.GEN_CREATED:
        return None
    if generator in _LED:  # a loop and a variable have the same one
        return None
    if inspect.getgeneratorstate(generator) != inspect.GEN_CREATED:
        raise Mismatch(f"the generator {generator.__qualname__}, which has begun already")
    if node["state"] == inspect.GEN_CLOSED:
        generator.close()
        return None
    _LED.add(generator)
    before = (tracker.way_back, tracker.live, tracker.due)
    tracker.way_back = WayIntoGenerator(tracker, node["entry"], generator.gi_frame)
    tracker.live, tracker.due = False, True
    try:
        return next(generator)
    finally:
        tracker.way_back, tracker.live, tracker.due = before
