"""A file that remembers the checksum of what went through it."""

from typing import IO

from ...checksum import WRITTEN, Checksum
from ..store import StoredFile


class HashingFile:
    """Reads from or writes to `file`, or nothing, and takes note of every byte.

    It cannot seek: whoever uses it reads or writes each byte once, in order.

    Args:
        file: Open for reading or writing; None to write nowhere.
        kind: Of the checksum.
    """

    def __init__(self, file: IO[bytes] | None, *, kind: str = WRITTEN) -> None:
        self._file = file
        self._checksum = Checksum(kind)

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes of the file."""
        data = self._file.read(size) if self._file is not None else b""
        self._checksum.update(data)
        return data

    def write(self, data: bytes) -> int:
        """Take the next bytes; returns how many."""
        self._checksum.update(data)
        return len(data) if self._file is None else self._file.write(data)

    @property
    def size(self) -> int:
        """How many bytes went through."""
        return self._checksum.bytes

    def result(self) -> StoredFile:
        """Return the size and the checksum of what went through."""
        return StoredFile(self._checksum.bytes, self._checksum.text)
