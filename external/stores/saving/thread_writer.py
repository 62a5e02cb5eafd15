"""Saving in the background with a plugin of the user's: staged here, written by it in a thread."""

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..store import StoredCheckpoint

Keep = Callable[[Any, Mapping[str, Any]], StoredCheckpoint]
Then = Callable[[StoredCheckpoint], None]


class ThreadWriter:
    """Saves with `keep` while training goes on; one at a time, in order, with one copy in memory.

    What it is given is lost when the process is killed: only `BackgroundWriter` outlives it.
    An error in the background is raised by the next call, whichever it is, once.

    Args:
        keep: Called in a thread with the copied state and the request.
    """

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._copies: list[torch.Tensor] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="curitorch-saving")
        self._pending: deque[tuple[Future[StoredCheckpoint], Then]] = deque()

    def save(
        self,
        obj: object,
        request: Mapping[str, Any],
        *,
        what: str,
        then: Then = lambda kept: None,
    ) -> None:
        """Copy `obj` and return; see `BackgroundWriter.save`.

        Raises:
            Exception: Whatever `keep` raised for an earlier save.
        """
        self.wait()
        leaves, structure = tree_flatten(obj)
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        self._copies = [
            _copy(tensor, old)
            for tensor, old in zip(tensors, [*self._copies, *[None] * len(tensors)], strict=False)
        ]
        copies = iter(self._copies)
        staged = [next(copies) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        state = tree_unflatten(staged, structure)
        self._pending.append((self._thread.submit(self._keep, state, dict(request)), then))

    @property
    def is_busy(self) -> bool:
        """Whether a save is under way, as far as `poll` and `wait` have seen."""
        return bool(self._pending)

    def poll(self) -> None:
        """Take note of what is done, without waiting.

        Raises:
            Exception: A save failed.
        """
        while self._pending and self._pending[0][0].done():
            self._take()

    def wait(self) -> None:
        """Wait until everything is durable.

        Raises:
            Exception: A save failed.
        """
        while self._pending:
            self._take()

    def close(self) -> None:
        """Wait, and end the thread.

        Raises:
            Exception: A save failed; all is put away nevertheless.
        """
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            self._copies = []

    def _take(self) -> None:
        future, then = self._pending.popleft()
        then(future.result())


def _copy(tensor: torch.Tensor, old: torch.Tensor | None) -> torch.Tensor:
    """Return a copy of `tensor` on the CPU, in the memory of `old` if that fits."""
    if old is None or old.shape != tensor.shape or old.dtype != tensor.dtype:
        return tensor.detach().to("cpu", copy=True)
    return old.copy_(tensor.detach())
