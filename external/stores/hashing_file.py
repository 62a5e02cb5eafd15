"""A file that remembers the checksum of what went through it."""

import hashlib
from typing import IO

from .store import StoredFile


class HashingFile:
    """Reads from or writes to `file`, or nothing, and takes note of every byte.

    It cannot seek: whoever uses it reads or writes each byte once, in order.
    """

    def __init__(self, file: IO[bytes] | None) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes of the file."""
        data = self._file.read(size) if self._file is not None else b""
        self._note(data)
        return data

    def write(self, data: bytes) -> int:
        """Take the next bytes; returns how many."""
        self._note(data)
        return len(data) if self._file is None else self._file.write(data)

    def result(self) -> StoredFile:
        """Return the size and the checksum of what went through."""
        return StoredFile(self.size, "sha256:" + self._digest.hexdigest())

    def _note(self, data: bytes) -> None:
        self._digest.update(data)
        self.size += len(data)
