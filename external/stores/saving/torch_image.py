"""The bytes of a torch file, laid out before one of them is copied.

A torch file is a zip archive without compression: the pickled structure, then each storage. Here
the archive's layout is computed first, so that the storages can be copied straight to where they
belong, into memory that is reused from save to save. `torch.load`, also with `mmap=True` and
`weights_only=True`, opens the result.

The structure is pickled as torch's own `_save` does it, but storages of a GPU stay where they are
until they are copied.
"""

import ctypes
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..files.direct_file import DirectFile
from ..store import StoredFile
from . import host_copy, zip_records
from .torch_structure import TorchStructure
from .unchanged import Stretch
from .zip_records import ALIGNMENT

_FOLDER = "archive"
_GPUS = ("cuda", "xpu")  # devices with streams
_FETCHED = 64 << 20  # bytes of a GPU's storage that are on the CPU at a time


class Piece(NamedTuple):  # a dataclass takes three times as long to make
    """A run of bytes of the file: `data` lies at `offset`, `size` bytes long."""

    offset: int
    size: int
    data: "bytes | torch.UntypedStorage"


@dataclass(frozen=True)
class TorchImage:
    """Where all lies in the file: `pieces`, each right behind the one before, `size` bytes."""

    pieces: list[Piece]
    size: int

    def gpus(self) -> set[torch.device]:
        """Return the devices that have bytes of it and copy them by themselves."""
        storages = (p.data for p in self.pieces if not isinstance(p.data, bytes))
        return {storage.device for storage in storages if storage.device.type in _GPUS}

    def stretches(self, big: int) -> list[Stretch]:
        """Return what it consists of: storages of at least `big` bytes, and what is between."""
        found: list[Stretch] = []
        for start, pieces in itertools.groupby(self.pieces, lambda p: _start_if_big(p, big)):
            together = list(pieces)
            size = sum(piece.size for piece in together)
            found.append(Stretch(size, _views(together), is_big=start is not None))
        return found

    def copy_into(
        self, buffer: Any, pieces: Iterable[Piece] | None = None, *, wait: bool = True
    ) -> None:
        """Copy all pieces, or some, into `buffer`, a writable buffer of at least `size` bytes.

        Args:
            buffer: Where to.
            pieces: What; None for all.
            wait: Return when all is there. If not, copies from a GPU into pinned memory are only
                asked for on its current stream.
        """
        view = memoryview(buffer)
        target = torch.frombuffer(buffer, dtype=torch.uint8)
        moves: list[host_copy.Move] = []
        for piece in self.pieces if pieces is None else pieces:
            end = piece.offset + piece.size
            if isinstance(piece.data, bytes):
                view[piece.offset : end] = piece.data
            elif piece.data.device.type == "cpu":
                address = target.data_ptr() + piece.offset
                moves.append((address, piece.data.data_ptr(), piece.size))
            else:
                part, on_gpu = target[piece.offset : end], piece.data.device.type in _GPUS
                part.copy_(bytes_of(piece.data), non_blocking=on_gpu)
        host_copy.copy(moves)
        for device in self.gpus() if wait else ():
            torch.get_device_module(device).current_stream(device).synchronize()

    def write_to(self, path: Path) -> StoredFile:
        """Write all pieces to the new file `path`, durably and without a copy of them in memory.

        Raises:
            FileExistsError: `path` exists.
            OSError: Not all could be written; some of it may be there.
        """
        with DirectFile(path, size=self.size) as file:
            for piece in self.pieces:
                for view in views_of(piece):
                    file.write(view)
        return file.stored()


def _start_if_big(piece: Piece, big: int) -> int | None:
    return None if piece.size < big or isinstance(piece.data, bytes) else piece.offset


def _views(pieces: list[Piece]) -> Callable[[], Iterator[bytes | memoryview]]:
    return lambda: itertools.chain.from_iterable(map(views_of, pieces))


def lay_out(obj: object) -> TorchImage:
    """Return the layout of the file that `torch.save(obj, …)` would write.

    No tensor is copied: the storages are referred to, and must be copied before they change.

    Raises:
        pickle.PicklingError: Something in `obj` cannot be pickled.
        RuntimeError: Two tensors view the same memory as different types.
    """
    structure = TorchStructure()
    structure.dump(obj)
    records: list[tuple[str, bytes | torch.UntypedStorage]] = [
        ("data.pkl", structure.content.getvalue()),
        (".format_version", b"1"),
        (".storage_alignment", str(ALIGNMENT).encode()),
        ("byteorder", sys.byteorder.encode()),
        *((f"data/{number}", storage) for number, storage in enumerate(structure.storages)),
        ("version", b"3\n"),
    ]
    pieces: list[Piece] = []
    entries: list[bytes] = []
    position = 0
    for name, data in records:
        path = f"{_FOLDER}/{name}"
        size = len(data) if isinstance(data, bytes) else data.nbytes()
        header = zip_records.local_header(path, size, position)
        entries.append(zip_records.central_entry(path, size, position))
        pieces.append(Piece(position, len(header), header))
        position += len(header)
        pieces.append(Piece(position, size, data))
        position += size
    directory = b"".join(entries)
    tail = directory + zip_records.end(len(entries), len(directory), position)
    pieces.append(Piece(position, len(tail), tail))
    return TorchImage(pieces=pieces, size=position + len(tail))


def bytes_of(storage: torch.UntypedStorage) -> torch.Tensor:
    """Return a tensor of the bytes in `storage`, which is not copied."""
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


def memory_of(storage: torch.UntypedStorage) -> memoryview:
    """Return the memory of `storage`, which is on the CPU and lives at least as long as its use.

    Numpy's view would do the same, and keep torch from ever resizing the storage.
    """
    size = storage.nbytes()
    if size == 0:
        return memoryview(b"")
    return memoryview((ctypes.c_char * size).from_address(storage.data_ptr())).cast("B")


def views_of(piece: Piece) -> Iterator[bytes | memoryview]:
    """Yield the bytes of `piece`, without a copy of all; those of a GPU come in parts."""
    if isinstance(piece.data, bytes):
        yield piece.data
    elif piece.data.device.type == "cpu":
        yield memory_of(piece.data)
    else:
        there = bytes_of(piece.data)
        for start in range(0, piece.size, _FETCHED):
            yield there[start : start + _FETCHED].cpu().numpy().data
