"""A large new file: written straight to the disk, hashed meanwhile, in 8 MiB of memory.

What goes through the page cache is copied once more, pushes out what others have there, and is
written back when the kernel likes. Here the pieces go from a few buffers that go round to the disk
(`O_DIRECT`), two at a time, while the next one is filled and hashed. On a file system without that
they go through the cache, and are dropped from it once they are on the disk.
"""

import ctypes
import errno
import fcntl
import mmap
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Self

from ...checksum import WRITTEN, Checksum
from ..store import StoredFile

PIECE = 2 << 20  # bytes; a huge page
_LARGE = 8 << 20  # bytes; of one write out of memory that is not copied
_BUFFERS = 4
_AT_A_TIME = 2  # writes; more are not faster
_BLOCK = 4096  # bytes: what goes to the disk directly begins and ends at a multiple of these
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class DirectFile:
    """Writes `path`, which must not exist. A context; when it is left, the file is durable.

    For one thread at a time.

    Args:
        path: Of the file.
        size: What it is expected to have in the end, so that a full disk is known at once; it may
            become shorter or longer.
        kind: Of the checksum.

    Raises:
        FileExistsError: `path` exists.
        OSError: The disk is full, or the file cannot be made.
    """

    def __init__(self, path: Path, *, size: int, kind: str = WRITTEN) -> None:
        self._path, self._size = path, size
        self._checksum = Checksum(kind)
        self._memory = mmap.mmap(-1, _BUFFERS * PIECE)  # aligned, as direct writes want it
        with suppress(OSError, AttributeError):  # a hint; not every kernel takes it
            self._memory.madvise(mmap.MADV_HUGEPAGE)
        whole = memoryview(self._memory)
        self._free = [whole[n * PIECE : (n + 1) * PIECE] for n in range(_BUFFERS)]
        self._now, self._filled = self._free.pop(), 0
        self._writing: deque[tuple[Future[None], memoryview]] = deque()

    def __enter__(self) -> Self:
        """Open the file."""
        self._descriptor = self._open()
        try:
            _reserve(self._descriptor, self._size)
        except OSError:
            os.close(self._descriptor)
            raise
        self._threads = ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="writing")
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._threads.shutdown()
            os.close(self._descriptor)

    @property
    def room(self) -> memoryview:
        """Memory for the next bytes, never empty: fill it from its beginning, then call `take`."""
        return self._now[self._filled :]

    def take(self, count: int) -> None:
        """Take the first `count` bytes of `room`.

        Raises:
            OSError: These, or earlier ones, could not be written.
        """
        self._filled += count
        if self._filled == PIECE:
            self._send()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Take bytes that lie elsewhere; returns how many there are.

        Raises:
            OSError: These, or earlier ones, could not be written.
        """
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest:
            room = self.room
            count = min(len(room), len(rest))
            room[:count] = rest[:count]
            rest = rest[count:]
            self.take(count)
        return size

    def write_pages(self, pages: memoryview) -> None:
        """Take memory that begins at a page; what is large is written from there, without a copy.

        Raises:
            OSError: These bytes, or earlier ones, could not be written.
        """
        begin = self._checksum.bytes
        if not self._filled and begin % _BLOCK == 0:
            whole = len(pages) // _BLOCK * _BLOCK
            parts = [pages[at : min(at + _LARGE, whole)] for at in range(0, whole, _LARGE)]
            offsets = range(begin, begin + whole, _LARGE)
            writing = [
                self._threads.submit(self._write, part, offset)
                for part, offset in zip(parts, offsets, strict=True)
            ]
            try:
                for at in range(0, whole, PIECE):
                    self._checksum.update(pages[at : min(at + PIECE, whole)])
            finally:
                wait(writing)
            for written in writing:
                written.result()
            pages = pages[whole:]
        self.write(pages)

    def stored(self) -> StoredFile:
        """Return the size and the checksum of the file, after the end of the context."""
        return StoredFile(self._checksum.bytes, self._checksum.text)

    def _send(self) -> None:
        """Have the full buffer written, and go on with a free one."""
        offset = self._checksum.bytes
        self._checksum.update(self._now)
        self._writing.append((self._threads.submit(self._write, self._now, offset), self._now))
        self._now, self._filled = self._free.pop() if self._free else self._written(), 0

    def _written(self) -> memoryview:
        """Return the buffer that was sent first, when it is written."""
        future, buffer = self._writing.popleft()
        future.result()
        return buffer

    def _finish(self) -> None:
        rest, offset = self._now[: self._filled], self._checksum.bytes
        self._checksum.update(rest)
        whole = len(rest) // _BLOCK * _BLOCK
        self._write(rest[:whole], offset)
        while self._writing:
            self._written()
        _through_the_cache(self._descriptor)
        self._write(rest[whole:], offset + whole)
        os.ftruncate(self._descriptor, self._checksum.bytes)
        os.fsync(self._descriptor)
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def _write(self, data: memoryview, offset: int) -> None:
        refused = False
        while data:
            try:
                count = os.pwrite(self._descriptor, data, offset)
            except OSError as error:
                if error.errno != errno.EINVAL or refused:
                    raise
                refused = True  # this file system wants other sizes, or no direct writes after all
                _through_the_cache(self._descriptor)
                continue
            data, offset = data[count:], offset + count

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return os.open(self._path, flags | os.O_DIRECT, 0o666)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            with suppress(FileNotFoundError):  # some kernels have made it by then
                self._path.unlink()
            return os.open(self._path, flags, 0o666)


def _reserve(descriptor: int, size: int) -> None:
    """Reserve the disk's space: direct writes of two threads then do not wait for each other."""
    # Not os.posix_fallocate: where the file system cannot, libc writes into each block instead.
    libc = ctypes.CDLL(None, use_errno=True)
    with suppress(AttributeError):
        libc.fallocate64.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        if size and libc.fallocate64(descriptor, 0, 0, size):
            code = ctypes.get_errno()
            if code in _NO_ROOM:
                raise OSError(code, os.strerror(code))


def _through_the_cache(descriptor: int) -> None:
    """Write through the page cache from here on."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~os.O_DIRECT)
