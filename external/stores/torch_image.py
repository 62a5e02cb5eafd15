"""The bytes of a torch file, laid out before one of them is copied.

A torch file is a zip archive without compression: the pickled structure, then each storage. Here
the archive's layout is computed first, so that the storages can be copied straight to where they
belong, into memory that is reused from save to save. `torch.load`, also with `mmap=True` and
`weights_only=True`, opens the result; its zip checksums are left zero, which torch does not
compare: the sidecar of a checkpoint has a faster and stronger one.

The structure is pickled by torch's own `_save` (torch/serialization.py of torch 2.13), which is
given an archive that only takes notes.
"""

import hashlib
import pickle
import struct
import threading
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch

ALIGNMENT = 64  # bytes, of every storage in the file; torch's own value
_FOLDER = "archive"
_LOCAL, _CENTRAL, _END = 0x04034B50, 0x02014B50, 0x06054B50
_END64, _LOCATOR64 = 0x06064B50, 0x07064B50
_LARGE, _MANY = 0xFFFFFFFF, 0xFFFF  # "see the 64-bit field"
_VERSION = 45  # of the zip format: 64-bit sizes


@dataclass(frozen=True)
class Piece:
    """A run of bytes of the file: `data` lies at `offset`, `size` bytes long."""

    offset: int
    size: int
    data: "bytes | torch.UntypedStorage"


@dataclass(frozen=True)
class TorchImage:
    """Where all lies in the file: `pieces`, each right behind the one before, `size` bytes."""

    pieces: list[Piece]
    size: int

    def copy_into(self, buffer: Any) -> None:
        """Copy all pieces into `buffer`, a writable buffer of at least `size` bytes."""
        view = memoryview(buffer)
        target = torch.frombuffer(buffer, dtype=torch.uint8)
        for piece in self.pieces:
            end = piece.offset + piece.size
            if isinstance(piece.data, bytes):
                view[piece.offset : end] = piece.data
            elif piece.size:
                target[piece.offset : end].copy_(_bytes_of(piece.data))

    def write_to(self, file: BinaryIO) -> str:
        """Write all pieces to `file`, without a copy of them, and return their checksum.

        The checksum is computed beside the writing, in a thread; it is as manifests have it.

        Raises:
            OSError: Not all could be written.
        """
        digest = hashlib.sha256()
        views = [_view_of(piece) for piece in self.pieces]

        def update() -> None:
            for view in views:
                digest.update(view)  # releases the interpreter lock

        hashing = threading.Thread(target=update)
        hashing.start()
        try:
            for view in views:
                file.write(view)
        finally:
            hashing.join()
        return f"sha256:{digest.hexdigest()}"


def lay_out(obj: object) -> TorchImage:
    """Return the layout of the file that `torch.save(obj, …)` would write.

    No tensor is copied: the storages are referred to, and must be copied before they change.

    Raises:
        pickle.PicklingError: Something in `obj` cannot be pickled.
        RuntimeError: Two tensors view the same memory as different types.
    """
    notes = _Notes()
    torch.serialization._save(obj, notes, pickle, 2, False)  # type: ignore[no-untyped-call]
    notes.write_record("version", b"3\n", 2)
    pieces: list[Piece] = []
    entries: list[bytes] = []
    position = 0
    for name, data, size in notes.records:
        header, position_of_data = _local_header(name, size, position)
        pieces += [Piece(position, len(header), header), Piece(position_of_data, size, data)]
        entries.append(_central_entry(name, size, position))
        position = position_of_data + size
    directory = b"".join(entries)
    tail = directory + _end(len(entries), len(directory), position)
    pieces.append(Piece(position, len(tail), tail))
    return TorchImage(pieces=pieces, size=position + len(tail))


def _bytes_of(storage: torch.UntypedStorage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8).set_(storage)


def _view_of(piece: Piece) -> bytes | memoryview:
    return piece.data if isinstance(piece.data, bytes) else _bytes_of(piece.data).numpy().data


class _Notes:
    """The part of torch's PyTorchFileWriter that `_save` uses; remembers instead of writing."""

    def __init__(self) -> None:
        self.records: list[tuple[str, bytes | torch.UntypedStorage, int]] = []

    def write_record(self, name: str, data: Any, size: int) -> None:
        if isinstance(data, str):
            data = data.encode()
        self.records.append((name, data, size))


def _local_header(name: str, size: int, position: int) -> tuple[bytes, int]:
    """Return a file's header at `position`, padded, and where its data begins."""
    path = f"{_FOLDER}/{name}".encode()
    large = struct.pack("<HHQQ", 1, 16, size, size) if size >= _LARGE else b""
    data = position + 30 + len(path) + len(large) + 4
    padding = -data % ALIGNMENT
    extra = large + struct.pack("<2sH", b"FB", padding) + b"Z" * padding  # as torch pads
    short = _LARGE if large else size
    header = struct.pack(
        "<IHHHHHIIIHH",
        *(_LOCAL, _VERSION, 0, 0, 0, 0),  # stored, no time
        *(0, short, short, len(path), len(extra)),
    )
    return header + path + extra, data + padding


def _central_entry(name: str, size: int, position: int) -> bytes:
    """Return a file's entry in the directory at the archive's end."""
    path = f"{_FOLDER}/{name}".encode()
    wide = b""
    short_size, short_position = size, position
    if size >= _LARGE:
        wide += struct.pack("<QQ", size, size)
        short_size = _LARGE
    if position >= _LARGE:
        wide += struct.pack("<Q", position)
        short_position = _LARGE
    extra = struct.pack("<HH", 1, len(wide)) + wide if wide else b""
    entry = struct.pack(
        "<IHHHHHHIIIHHHHHII",
        *(_CENTRAL, _VERSION, _VERSION, 0, 0, 0, 0),
        *(0, short_size, short_size, len(path), len(extra)),
        *(0, 0, 0, 0, short_position),
    )
    return entry + path + extra


def _end(entries: int, size: int, position: int) -> bytes:
    """Return the records that end the archive, with 64-bit ones where they are needed."""
    wide = b""
    if position >= _LARGE or entries >= _MANY:
        wide = struct.pack(
            "<IQHHIIQQQQ", _END64, 44, _VERSION, _VERSION, 0, 0, entries, entries, size, position
        ) + struct.pack("<IIQI", _LOCATOR64, 0, position + size, 1)
    short = min(entries, _MANY)
    return wide + struct.pack("<IHHHHIIH", _END, 0, 0, short, short, size, min(position, _LARGE), 0)
