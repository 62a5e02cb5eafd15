"""A torch file, read into memory once: compared with its checksum before anything is unpickled.

Each storage is read to where its tensor will be, hashed while it is in the processor's cache. No
huge pages are asked for: they save a third where the system has them ready, but a virtual machine
whose host has to find them first takes three times as long.

What is unpickled goes through torch's own `_load` (torch/serialization.py of torch 2.13), which is
given an archive that is in memory already; a test compares with `torch.load`.
"""

import pickle
from typing import Any, Protocol

import torch

from ..saving.torch_image import memory_of
from .zip_layout import Source, records

_PIECE = 2 << 20  # bytes; more do not stay in a core's cache between being read and hashed


class Digest(Protocol):
    """What is told of every byte of the file, in their order; see `Checksum`."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take the next bytes."""


class TorchArchive:
    """What of a torch file is needed to unpickle it.

    Args:
        source: The file; not needed any more when this is made.
        digest: Is told of every byte.

    Raises:
        ValueError: It is no zip archive without compression, as torch writes them, or a torn one.
        OSError: It cannot be read.
    """

    def __init__(self, source: Source, digest: Digest | None = None) -> None:
        self._records: dict[str, torch.Tensor] = {}
        position = 0
        for name, offset, size in records(source):
            _pass_over(source, position, offset, digest)
            self._records[name] = _read(source, offset, size, digest)
            position = offset + size
        _pass_over(source, position, source.size, digest)

    @property
    def is_script(self) -> bool:
        """Whether it is a TorchScript program, which is not unpickled."""
        return "constants.pkl" in self._records

    def unpickle(self, map_location: Any = None, *, weights_only: bool = True) -> Any:
        """Return the object, as `torch.load` would; only once, its memory is the object's then.

        Raises:
            pickle.UnpicklingError: It holds something that `weights_only` does not allow.
        """
        how = torch._weights_only_unpickler if weights_only else pickle
        return torch.serialization._load(  # type: ignore[no-untyped-call]
            self, map_location, how, encoding="utf-8"
        )

    # What follows is the part of torch's PyTorchFileReader that `_load` uses.

    def has_record(self, name: str) -> bool:
        """Return whether there is a record `name`."""
        return name in self._records

    def get_record(self, name: str) -> bytes:
        """Return the bytes of a small record."""
        return self._records[name].numpy().tobytes()

    def get_storage_from_record(self, name: str, size: int, kind: type) -> torch.Tensor:
        """Hand out the memory of a large record."""
        if size == 0:
            return torch.empty(0, dtype=torch.uint8)  # asked for again and again
        record = self._records.pop(name)
        if record.numel() != size:
            raise RuntimeError(f"record {name} has {record.numel()} bytes, expected {size}")
        return record

    def serialization_id(self) -> str:
        """Return what torch's telemetry calls the file."""
        return ""


def _read(source: Source, offset: int, size: int, digest: Digest | None) -> torch.Tensor:
    memory = torch.empty(size, dtype=torch.uint8)
    view = memory_of(memory.untyped_storage())
    for start in range(0, size, _PIECE):
        piece = view[start : start + _PIECE]
        source.read_into(piece, offset + start)
        if digest is not None:
            digest.update(piece)
    return memory


def _pass_over(source: Source, start: int, end: int, digest: Digest | None) -> None:
    """Hash the bytes between records, which are few: headers and the directory."""
    if digest is not None and end > start:
        between = bytearray(end - start)
        source.read_into(memoryview(between), start)
        digest.update(between)
