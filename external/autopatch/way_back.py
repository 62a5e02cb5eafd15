"""The way back to a saved position: which statements of a new process run, and which were done.

Until the outermost saved loop all runs as written, but for statements that trained. In a loop on
the way, what only computed values that are saved is passed over; what makes objects (a model of
this fold, an optimizer) runs. Iterators are rebuilt where they stood. When the innermost loop
begins its first iteration here, everything gets its saved value, the generators last.
"""

from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from ..exact.randomness import derive_seed, seed_generators
from . import class_attributes, generators, iterators
from .decoder import Decoder
from .saved_frames import SavedFrames
from .source import Statement
from .values import Mismatch, is_restorable
from .variables_back import assign, decoded, forget_items, restore_module

if TYPE_CHECKING:
    from .tracker import Tracker


class CannotResume(RuntimeError):
    """The script took another way than when it was saved; the message says where."""


class WayBack(SavedFrames):
    """Leads a script, which has just begun, to where `saved` was taken.

    Args:
        tracker: Of the script.
        saved: From `position.take`.
        decoder: With the tensors of `saved`.
        then: Called when the script is there and `live` again.
    """

    def __init__(
        self,
        tracker: "Tracker",
        saved: dict[str, Any],
        decoder: Decoder,
        then: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(tracker, saved)
        self.decoder = decoder
        self.then = then
        self.ranks_before: int | None = None  # if there were not as many as now
        self.rank = 0
        self._skipped: list[set[str]] = [set() for _ in saved["entries"]]
        self._remade: set[str] = set()

    def is_to_run(self, statement: Statement, frame: FrameType) -> bool:
        """Return whether a statement is to be run, or was done before the position."""
        index = self._index(frame)
        if index is None:
            return True
        chain = self._chain(index)
        numbers = [each.number for each in chain]
        if statement.number in numbers:
            return True
        beside = next((each for each in chain if each.block == statement.block), None)
        if beside is None:
            return True
        if statement.number > beside.number:
            raise CannotResume(
                f"{frame.f_code.co_filename}:{statement.line}: the script came here without "
                f"passing where it was saved, in line {chain[-1].line}. Has its data, or what it "
                "is called with, changed? Use another root to begin anew."
            )
        trained = statement.number in self._trained_here()
        outer = any(self._has_loop(each) for each in range(index))
        in_loop = outer or any(
            each.kind in ("For", "While") for each in chain[: numbers.index(beside.number)]
        )
        if not in_loop:
            if trained:
                self._skip(statement, index)
            return not trained
        makes = [name for name in statement.binds if not self._is_saved(name, index)]
        again = statement.receiver.split(".")[0] in self._remade and not trained
        if (makes and not trained) or (again and statement.receiver):
            self._remade.update(name.split(".")[0] for name in makes)
            return True
        self._skip(statement, index)
        return False

    def branch(self, statement: Statement, frame: FrameType) -> bool | None:
        """Return whether the way leads into the body of an `if` or `while`; None if past it."""
        index = self._index(frame)
        if index is None:
            return None
        chain = self._chain(index)
        for position, each in enumerate(chain):
            if each.number == statement.number:
                if position + 1 < len(chain):
                    return chain[position + 1].branch == "body"
                return True if each.kind == "While" else None
        return None

    def loop(self, iterable: Any, statement: Statement, frame: FrameType) -> iterators.Loop | None:
        """Return the loop of `statement` where it stood, if it is on the way."""
        index = self._index(frame)
        if index is None:
            return None
        node = self.saved["entries"][index]["loops"].get(self.tracker.identity(statement.number))
        if node is None:
            return None
        if node["rng"]:
            generators.put(node["rng"])
        it = iterators.rebuild(node["at"], iterable)
        return iterators.Loop(it, iterators.begun_of(node["at"], it), node["rng"])

    def arrive(self, statement: Statement, frame: FrameType) -> None:
        """An iteration begins: restore what is known of this frame, or all if this is the place."""
        index = self._index(frame)
        if index is None:
            return
        chain = self._chain(index)
        if statement.number not in [each.number for each in chain]:
            return
        last = index == len(self.saved["entries"]) - 1
        if last and statement.number == chain[-1].number:
            self._go_live()
        else:
            self._restore_early(index, frame)

    # What is saved.

    def _variables(self, index: int) -> dict[str, Any]:
        entry = self.saved["entries"][index]
        own: dict[str, Any] = entry["variables"]
        module: dict[str, Any] = self.saved["modules"].get(entry["file"], {})
        return {**module, **own}

    def _is_saved(self, name: str, index: int) -> bool:
        variables = self._variables(index)
        parts = name.split(".")
        if parts[0] not in variables:
            return False
        node = variables[parts[0]]
        for part in parts[1:]:
            if not isinstance(node, dict) or part not in node.get("a", {}):
                return False
            node = node["a"][part]
        return self._needs_no_object(node)

    def _needs_no_object(self, node: Any) -> bool:
        return is_restorable(node)

    def _skip(self, statement: Statement, index: int) -> None:
        self._skipped[index].update(statement.binds)
        for name in statement.binds:
            node = self._variables(index).get(name)
            if isinstance(node, dict) and node["k"] in ("module", "optimizer", "loader", "opaque"):
                raise CannotResume(
                    f"line {statement.line}: it trains, and gives {name!r}, which cannot be saved. "
                    "Build what is trained before the statement that trains it."
                )

    # Restoring.

    def _restore_early(self, index: int, frame: FrameType) -> None:
        """Give the variables of a frame on the way those values that need no object."""
        variables = self._variables(index)
        wanted = self._wanted_names(index)
        values = {
            name: Decoder([], lambda name: True).decode(node)
            for name, node in variables.items()
            if name in wanted and is_restorable(node)
        }
        assign(frame, values, self.saved["entries"][index]["variables"])

    def _wanted_names(self, index: int) -> set[str]:
        """Return the names in a frame that are bound to something else as the script goes on."""
        if any(self._has_loop(each) for each in range(index)):
            return set(self._variables(index))
        source = self.tracker.sources[self.frames[index].f_code.co_filename]
        code = self.frames[index].f_code
        line = 0 if code.co_name == "<module>" else code.co_firstlineno
        names = set(self._skipped[index]) | source.shared
        for statement in source.functions[code.co_name, line]:
            names |= statement.in_loop_binds
        return names

    def _go_live(self) -> None:
        entries = self.saved["entries"]
        if len(self.frames) != len(entries):
            raise CannotResume("The script is not where it was saved. Use another root.")
        if self.ranks_before is not None:
            forget_items(self.saved, self._chain(len(self.frames) - 1)[-1].targets)
        try:
            for source in self.tracker.sources.values():
                if source.key in self.saved["modules"]:
                    wanted = self._skipped_at_module(source.key)
                    restore_module(self.tracker, self.saved, source.key, wanted, self.decoder)
            class_attributes.put(self.tracker, self.saved.get("classes", {}), self.decoder.decode)
            for index, frame in enumerate(self.frames):
                own = entries[index]["variables"]
                wanted = self._wanted_names(index)
                current = dict(frame.f_locals)
                assign(frame, decoded(self.decoder, own, current, wanted), own)
        except Mismatch as error:
            raise CannotResume(
                f"The script does not make what it had made when it was saved: {error}. Call it "
                "as then, or use another root to begin anew."
            ) from error
        self.tracker.steps = self.saved["steps"]
        self.tracker.trained |= self._trained_here()
        generators.put(self.saved["rng"])
        if self.ranks_before is not None and self.rank > 0:
            seed_generators(derive_seed(self.saved["steps"], "rank", self.rank))
        self.tracker.live = True
        self.tracker.due = False
        self.tracker.way_back = None
        self.frames.clear()
        self.then()

    def _skipped_at_module(self, key: str) -> set[str]:
        """Return the names that statements which were passed over would have bound."""
        found: set[str] = set()
        for index, entry in enumerate(self.saved["entries"]):
            if entry["file"] == key and entry["function"][0] == "<module>":
                found |= self._skipped[index]
        return found
