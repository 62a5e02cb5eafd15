"""A durable copy of a file, hashed while it is copied."""

import os
from io import FileIO
from pathlib import Path

from ...checksum import WRITTEN, Checksum
from ..saving.staged_memory import staged
from ..store import StoredFile
from .direct_file import DirectFile
from .page_cache import is_cached

LARGE = 8 << 20
"""From so many bytes on a file is copied past the page cache."""

_PIECE = 1 << 20


def copy_file(source: Path, target: Path, *, kind: str = WRITTEN) -> StoredFile:
    """Copy the bytes of `source` to the new file `target`, durably.

    What is returned is true of the copy, whatever happens to `source` meanwhile. A large `source`
    that was not in the page cache is not left there either.

    Args:
        source: A regular file; `/proc/self/fd/N` is one if N is. Staging memory stays as it is
            meanwhile.
        target: Must not exist; after an error some of it may be there.
        kind: Of the checksum.

    Raises:
        FileExistsError: `target` exists.
        OSError: `source` cannot be read, or the disk is full.
    """
    with source.open("rb", buffering=0) as reader:
        size = os.fstat(reader.fileno()).st_size
        if size < LARGE:
            return _copy_small(reader, target, kind)
        memory = staged(reader.fileno())
        if memory is not None:
            with DirectFile(target, size=size, kind=kind) as copy:
                copy.write_pages(memory)
            return copy.stored()
        os.posix_fadvise(reader.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        leave = _was_cached(reader)
        with DirectFile(target, size=size, kind=kind) as copy:
            while count := reader.readinto(copy.room):
                copy.take(count)
                if not leave:
                    here = reader.tell() - count
                    os.posix_fadvise(reader.fileno(), here, count, os.POSIX_FADV_DONTNEED)
    return copy.stored()


def _copy_small(reader: FileIO, target: Path, kind: str) -> StoredFile:
    found = Checksum(kind)
    with target.open("xb", buffering=0) as writer:
        buffer = memoryview(bytearray(_PIECE))
        while count := reader.readinto(buffer):
            rest = buffer[:count]
            found.update(rest)
            while rest:
                rest = rest[writer.write(rest) :]
        os.fsync(writer.fileno())
    return StoredFile(found.bytes, found.text)


def _was_cached(reader: FileIO) -> bool:
    """Return whether the file's first page is in the page cache, or nobody knows."""
    try:
        return is_cached(reader.fileno())
    except (OSError, ValueError, AttributeError):  # not every file or system can tell
        return True
