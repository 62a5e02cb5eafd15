"""A file that comes in: written and hashed by a thread while the next piece is received."""

import hashlib
import queue
import threading
from io import FileIO
from typing import Self

from .connection import FileFailed
from .store import StoredFile

PIECE = 1 << 20
BUFFERS = 4


class FileLanding:
    """Takes the pieces of a file, in turn in a few buffers. A context: at its end all is written.

    Args:
        file: Open for writing, unbuffered; the caller closes it, after the context.

    Raises:
        OSError: Writing failed; raised at the end of the context.
    """

    def __init__(self, file: FileIO) -> None:
        self.bytes = 0
        self._file = file
        self._digest = hashlib.sha256()
        self._free: queue.Queue[memoryview] = queue.Queue()
        self._full: queue.Queue[tuple[memoryview, int]] = queue.Queue()
        for _ in range(BUFFERS):
            self._free.put(memoryview(bytearray(PIECE)))
        self._now = self._free.get()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._full.put((memoryview(b""), 0))
        self._thread.join()
        if self._error is not None and kind is None:
            raise self._error

    def buffer(self) -> memoryview:
        """Return memory for the next piece."""
        return self._now

    def take(self, count: int) -> None:
        """Take `count` bytes of the buffer.

        Raises:
            FileFailed: Writing an earlier piece failed.
        """
        if self._error is not None:
            raise FileFailed(self._error)
        self._full.put((self._now, count))
        self.bytes += count
        self._now = self._free.get()

    def stored(self) -> StoredFile:
        """Return what came, after the end of the context."""
        return StoredFile(self.bytes, f"sha256:{self._digest.hexdigest()}")

    def _work(self) -> None:
        while True:
            buffer, count = self._full.get()
            if not count:
                return
            try:
                if self._error is None:
                    self._write(buffer[:count])
            except OSError as error:
                self._error = error
            finally:
                self._free.put(buffer)

    def _write(self, piece: memoryview) -> None:
        self._digest.update(piece)
        while piece:
            piece = piece[self._file.write(piece) :]
