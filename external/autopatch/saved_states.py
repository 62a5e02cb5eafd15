"""What is saved of a script: checkpoints in its store, and the last clean state in memory."""

import time
from typing import TYPE_CHECKING, Any

from .checkpoints import Checkpoints
from .findings import LOG

if TYPE_CHECKING:
    from .held_state import HeldState


class SavedStates:
    """Those of one script; `is_saving` while the main thread is about it."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self._held: HeldState | None = None
        self.is_saving = False

    def put(self, state: dict[str, Any], steps: int, *, complete: bool) -> None:
        """Add a checkpoint; it is durable when `close` returns."""
        self.is_saving = True
        try:
            self._checkpoints.put(state, steps=steps, complete=complete)
        finally:
            self.is_saving = False

    def hold_from_now(self) -> "HeldState":
        """Hold clean states in memory."""
        from .held_state import HeldState

        self._held = HeldState()
        return self._held

    @property
    def held_due_at(self) -> float:
        """When the next is to be held, by `time.monotonic`."""
        return float("inf") if self._held is None else self._held.due_at

    def hold(self, state: dict[str, Any] | None, steps: int, *, began: float, done: bool) -> None:
        """Hold a state, if there is one; looking for it began at `began`, and is `done` with."""
        assert self._held is not None
        if state is not None:
            self._held.hold(state, steps)
        self._held.spend(time.monotonic() - began)
        if done:
            self._held.wait()

    def wait(self) -> None:
        """The state is a saved one: the next is to be held later."""
        if self._held is not None:
            self._held.wait()

    def put_held(self) -> None:
        """Save the last clean state, if it is newer than what is saved."""
        held = None if self._held is None else self._held.take(self._checkpoints.steps)
        if held is not None:
            self.put(*held, complete=False)
            LOG.warning("Saved the last clean state, of step %d.", held[1])

    def close(self) -> None:
        """Wait until all is durable."""
        self._checkpoints.close()
