"""A file that comes in: hashed by a thread while it is written and the next piece is received."""

import hashlib
import queue
import threading
from io import FileIO
from pathlib import Path
from typing import Self

from .store import StoredFile

PIECE = 1 << 18  # bytes; a buffer stays in a core's cache between being received and hashed
BUFFERS = 8


class FileLanding:
    """Takes the pieces of a file, out of a few buffers that go round. A context: it opens the file.

    For one thread at a time. Nothing is fsynced.

    Args:
        path: `offset` bytes long; made or emptied if `offset` is 0.
        offset: Where to go on.
        hashed: Whether to compute the checksum, of what is there before `offset` as well.
    """

    def __init__(self, path: Path, *, offset: int = 0, hashed: bool = True) -> None:
        self.bytes = offset
        self._path = path
        self._digest = hashlib.sha256() if hashed else None
        self._free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        self._full: queue.SimpleQueue[tuple[memoryview, int] | None] = queue.SimpleQueue()
        self._now = memoryview(bytearray(PIECE))
        self._file: FileIO | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Open the file.

        Raises:
            OSError: That failed.
        """
        self._file = self._open()
        if self._digest is not None:
            for _ in range(BUFFERS - 1):
                self._free.put(memoryview(bytearray(PIECE)))
            self._thread = threading.Thread(target=self._hash, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._thread is not None:
            self._full.put(None)
            self._thread.join()
        if self._file is not None:
            self._file.close()

    def buffer(self) -> memoryview:
        """Return memory for the next piece."""
        return self._now

    def take(self, count: int) -> None:
        """Take the first `count` bytes of the buffer.

        Raises:
            OSError: They cannot be written.
        """
        full, rest = self._now, self._now[:count]
        if self._digest is not None:
            self._full.put((full, count))
            self._now = self._free.get()
        assert self._file is not None
        while rest:
            rest = rest[self._file.write(rest) :]
        self.bytes += count

    def take_all(self, data: bytes) -> None:
        """Take bytes that lie elsewhere."""
        rest = memoryview(data)
        while rest:
            count = min(len(rest), PIECE)
            self._now[:count] = rest[:count]
            rest = rest[count:]
            self.take(count)

    def stored(self) -> StoredFile:
        """Return what is in the file, after the end of the context."""
        assert self._digest is not None
        return StoredFile(self.bytes, f"sha256:{self._digest.hexdigest()}")

    def _open(self) -> FileIO:
        if self.bytes == 0:
            return self._path.open("wb", buffering=0)
        file = self._path.open("r+b", buffering=0)
        while self._digest is not None and (count := file.readinto(self._now)):
            self._digest.update(self._now[:count])
        file.seek(self.bytes)
        return file

    def _hash(self) -> None:
        assert self._digest is not None
        while (full := self._full.get()) is not None:
            buffer, count = full
            self._digest.update(buffer[:count])
            self._free.put(buffer)
