"""Copies from a GPU on a stream of their own, which training's stream does not wait for yet."""

from collections.abc import Sequence
from typing import Any

import torch

from .torch_image import Piece, bytes_of


class SideStream:
    """One copy of storages as they are at the point that the current stream of `device` is at.

    Made by the thread that trains; `copy` and `wait` are for another thread, `hold` again for the
    one that trains, after `copy` has returned.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._module = torch.get_device_module(device)
        self._stream = self._module.Stream(device)
        self._reached = _event(self._module)
        self._reached.record(self._module.current_stream(device))
        self._done = _event(self._module)

    def copy(self, pieces: Sequence[Piece], target: torch.Tensor) -> None:
        """Ask for the copies; returns before they are made if the memory of `target` is pinned."""
        with self._module.stream(self._stream):
            self._stream.wait_event(self._reached)
            for piece in pieces:
                assert not isinstance(piece.data, bytes)
                part = target[piece.offset : piece.offset + piece.size]
                part.copy_(bytes_of(piece.data), non_blocking=True)
            self._done.record(self._stream)

    def hold(self) -> None:
        """Let the current stream wait for the copies, not the caller."""
        self._module.current_stream(self._device).wait_event(self._done)

    def wait(self) -> None:
        """Wait until the copies are made."""
        self._done.synchronize()


def _event(module: Any) -> Any:
    try:
        return module.Event(blocking=True)  # to wait for it must not take a core from training
    except TypeError:  # not every device's events know that
        return module.Event()
