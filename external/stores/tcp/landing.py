"""A file that comes in: each piece is hashed while it is still in the core's cache, and written."""

from io import FileIO
from pathlib import Path
from typing import Self

from ...checksum import WRITTEN, Checksum
from ..store import StoredFile

PIECE = 1 << 19  # bytes; more do not stay in a core's cache between being received and hashed


class FileLanding:
    """Takes the pieces of a file. A context: it opens the file.

    For one thread at a time. Nothing is fsynced.

    Args:
        path: `offset` bytes long; made or emptied if `offset` is 0.
        offset: Where to go on.
        kind: Of the checksum, of what is there before `offset` as well; None for none.
    """

    def __init__(self, path: Path, *, offset: int = 0, kind: str | None = WRITTEN) -> None:
        self.bytes = offset
        self._path = path
        self._checksum = None if kind is None else Checksum(kind)
        self._buffer = memoryview(bytearray(PIECE))
        self._file: FileIO | None = None

    def __enter__(self) -> Self:
        """Open the file.

        Raises:
            OSError: That failed.
        """
        self._file = self._open()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()

    def buffer(self) -> memoryview:
        """Return memory for the next piece."""
        return self._buffer

    def take(self, count: int) -> None:
        """Take the first `count` bytes of the buffer.

        Raises:
            OSError: They cannot be written.
        """
        self._take(self._buffer[:count])

    def take_all(self, data: bytes) -> None:
        """Take bytes that lie elsewhere.

        Raises:
            OSError: They cannot be written.
        """
        self._take(memoryview(data))

    def stored(self) -> StoredFile:
        """Return what is in the file, after the end of the context."""
        assert self._checksum is not None
        return StoredFile(self.bytes, self._checksum.text)

    def _take(self, data: memoryview) -> None:
        assert self._file is not None
        rest = data
        while rest:
            rest = rest[self._file.write(rest) :]
        if self._checksum is not None:
            self._checksum.update(data)
        self.bytes += len(data)

    def _open(self) -> FileIO:
        if self.bytes == 0:
            return self._path.open("wb", buffering=0)
        file = self._path.open("r+b", buffering=0)
        while self._checksum is not None and (count := file.readinto(self._buffer)):
            self._checksum.update(self._buffer[:count])
        file.seek(self.bytes)
        return file
