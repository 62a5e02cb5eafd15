"""Which of the running frames are those of a saved position, and what is saved of each."""

from types import FrameType
from typing import TYPE_CHECKING, Any

from .source import Statement
from .tracker import place_of

if TYPE_CHECKING:
    from .tracker import Tracker


class SavedFrames:
    """The frames of `saved`, the outermost first; `frames` are those found so far."""

    def __init__(self, tracker: "Tracker", saved: dict[str, Any]) -> None:
        self.tracker = tracker
        self.saved = saved
        self.frames: list[FrameType] = []
        self._trained: set[int] = set()
        self._files: set[str] = set()
        self._chains: dict[int, list[Statement]] = {}

    def _index(self, frame: FrameType) -> int | None:
        """Return which saved frame `frame` is, if it is on the way."""
        for index in range(len(self.frames) - 1, -1, -1):
            if self.frames[index] is frame:
                return index
        index = len(self.frames)
        entries = self.saved["entries"]
        if index == len(entries) or not self._is_like(frame, entries[index]):
            return None
        above = frame.f_back
        while above is not None and above.f_code.co_filename not in self.tracker.sources:
            above = above.f_back
        if index == 0:
            if above is not None:
                return None
        elif above is not self.frames[-1] or not self._is_at_place(above, index - 1):
            return None
        self.frames.append(frame)
        return index

    def _is_like(self, frame: FrameType, entry: dict[str, Any]) -> bool:
        code = frame.f_code
        source = self.tracker.sources.get(code.co_filename)
        line = 0 if code.co_name == "<module>" else code.co_firstlineno
        return (
            source is not None
            and source.key == entry["file"]
            and [code.co_name, line] == list(entry["function"])
        )

    def _is_at_place(self, frame: FrameType, index: int) -> bool:
        return bool(place_of(frame) == self.saved["entries"][index]["place"])

    def _chain(self, index: int) -> list[Statement]:
        if index not in self._chains:
            numbers = [self.tracker.number(each) for each in self.saved["entries"][index]["chain"]]
            self._chains[index] = [self.tracker.statements[n] for n in numbers if n is not None]
        return self._chains[index]

    def _has_loop(self, index: int) -> bool:
        return any(each.kind in ("For", "While") for each in self._chain(index))

    def _trained_here(self) -> set[int]:
        loaded = {source.key for source in self.tracker.sources.values()}
        if loaded != self._files:
            self._files = loaded
            found = (self.tracker.number(each) for each in self.saved["trained"])
            self._trained = {each for each in found if each is not None}
        return self._trained
