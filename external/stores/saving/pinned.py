"""Page-locked memory: a GPU copies into it by itself, beside what the processor does."""

import contextlib
from typing import Any

import torch

_PORTABLE = 1  # cudaHostRegisterPortable: for all GPUs


class PinnedRange:
    """A part of this process's memory that CUDA has locked; it has to be released before unmapping.

    Raises:
        OSError: CUDA refused. Copies into the memory work all the same, through a small locked
            buffer of the driver's own: more slowly, and the thread that asks for them waits.
    """

    def __init__(self, address: int, size: int) -> None:
        self.address = address
        self.size = size
        code = int(_cudart().cudaHostRegister(address, size, _PORTABLE))
        if code:
            _forget_error()
            raise OSError(f"CUDA does not lock {size} bytes of memory: error {code}.")

    def release(self) -> None:
        """Unlock it; nothing may be copying into it."""
        _cudart().cudaHostUnregister(self.address)


def _forget_error() -> None:
    """Let CUDA report its last error here: it reports it once more, to whatever comes next."""
    with contextlib.suppress(RuntimeError):
        torch.zeros(1, device="cuda")


def _cudart() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]
