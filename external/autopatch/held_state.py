"""The last clean state, in memory: what an exception, or a rank that hangs, leaves to be saved.

A copy is taken as often as it costs a hundredth of the time; it needs as much memory as a
checkpoint, and is not taken where that is more than a quarter of what is free. The memory of one
copy is used for the next: to be given new memory takes longer than to copy into it.
"""

import time
from pathlib import Path
from typing import Any

import torch

from .findings import LOG

_SHARE = 100  # of the time that a copy takes, between two of them
_LEAST = 0.5  # seconds
_MOST_OF_FREE = 0.25
_PLAIN = (str, int, float, bool, type(None))


class HeldState:
    """Holds one state; `due_at` is when the next is to be taken, by `time.monotonic`."""

    def __init__(self) -> None:
        self.due_at = 0.0
        self._state: dict[str, Any] | None = None
        self._tensors: list[torch.Tensor] = []  # of the state
        self._steps = -1
        self._spent = 0.0

    def hold(self, state: dict[str, Any], steps: int) -> None:
        """Copy a state of so many steps."""
        spare = SpareTensors(self._tensors)
        self._state, self._tensors = None, []  # until all of it is the new one
        if _bytes(state) > _MOST_OF_FREE * (_free() + spare.size):
            LOG.info("Too little memory is free to hold the last state for an exception.")
            self.due_at = float("inf")
            return
        with torch.inference_mode(mode=False), torch.no_grad():  # whatever the script is in
            self._state, self._steps = copied(state, spare), steps
        self._tensors = spare.made

    def spend(self, seconds: float) -> None:
        """Take note of what looking for a place to copy at, or copying, has cost."""
        self._spent += seconds

    def wait(self) -> None:
        """Let the next be due so much later that what was spent is little."""
        self.due_at = time.monotonic() + max(_LEAST, _SHARE * self._spent)
        self._spent = 0.0

    def take(self, newer_than: int) -> tuple[dict[str, Any], int] | None:
        """Return the state and its steps, once, if they are more than `newer_than`."""
        state, self._state, self._tensors = self._state, None, []
        return (state, self._steps) if state is not None and self._steps > newer_than else None


class SpareTensors:
    """Tensors of a copy that is needed no more, `size` bytes; `made` are those of a new one."""

    def __init__(self, tensors: list[torch.Tensor]) -> None:
        self.size = sum(map(_size, tensors))
        self.made: list[torch.Tensor] = []
        self._found: dict[Any, list[torch.Tensor]] = {}
        for each in tensors:
            if each.layout is torch.strided and not each.is_quantized:
                self._found.setdefault((each.dtype, each.shape, each.stride()), []).append(each)

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a copy of `tensor` on the CPU."""
        found = None
        if tensor.layout is torch.strided:
            found = self._found.get((tensor.dtype, tensor.shape, tensor.stride()))
        made = found.pop().copy_(tensor) if found else tensor.to("cpu", copy=True)
        self.made.append(made)
        return made


def copied(value: Any, spare: SpareTensors) -> Any:
    """Return a copy on the CPU of the tensors in containers, and everything else as it is.

    Args:
        value: Tensors, containers of them, and plain data.
        spare: Whose memory is used where it fits.
    """
    if type(value) in _PLAIN:
        return value
    if isinstance(value, torch.Tensor):
        return spare.copy(value)
    if isinstance(value, dict):
        return {key: copied(each, spare) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copied(each, spare) for each in value)
    return value


def _bytes(value: Any) -> int:
    if type(value) in _PLAIN:
        return 0
    if isinstance(value, torch.Tensor):
        return _size(value)
    if isinstance(value, dict):
        return sum(_bytes(each) for each in value.values())
    return sum(_bytes(each) for each in value) if isinstance(value, list | tuple) else 0


def _size(tensor: torch.Tensor) -> int:
    """Return the bytes of a tensor; a sparse one does not tell."""
    return tensor.nbytes if tensor.layout is torch.strided else 0


def _free() -> float:
    """Return the bytes that may be used without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    [line] = [each for each in lines if each.startswith("MemAvailable:")]
    return float(line.split()[1]) * 1024
