"""The staging memory of a trainer, in the process that writes it: mapped once, as it is reused.

To map a gigabyte anew for each save would cost as much as to hash it.
"""

import mmap
import os

from .staging import NAME


class _Mapping:
    """The memory that was asked for last."""

    def __init__(self) -> None:
        self._file: tuple[int, int] | None = None
        self._pages: mmap.mmap | None = None

    def of(self, descriptor: int) -> memoryview:
        """Return all of the file `descriptor`, which must not become shorter while that is used."""
        about = os.fstat(descriptor)
        file = (about.st_dev, about.st_ino)
        if self._pages is None or file != self._file or about.st_size > len(self._pages):
            self._pages = mmap.mmap(descriptor, about.st_size, mmap.MAP_SHARED, mmap.PROT_READ)
            self._file = file
        return memoryview(self._pages)[: about.st_size]


_LAST = _Mapping()


def staged(descriptor: int) -> memoryview | None:
    """Return the memory behind a descriptor of `StagingBuffer`; None if it is another file.

    For one thread at a time.
    """
    try:
        name = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - it is no path
    except OSError:  # no /proc here
        return None
    if not name.startswith(f"/memfd:{NAME} ") or not os.fstat(descriptor).st_size:
        return None
    return _LAST.of(descriptor)
