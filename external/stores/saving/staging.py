"""Staging memory: one buffer that a checkpoint is copied into, reused and never given back between.

Copying into fresh memory costs its page faults, ten times the copy itself; this memory is faulted
in once. It is a file in memory (memfd), so that another process can write it out.
"""

import contextlib
import ctypes
import mmap
import os
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .pinned import PinnedRange

NAME = "curitorch-staging"
_PAGE = 1 << 21  # grow by huge pages: a little larger checkpoint does not fault everything anew


class StagingBuffer:
    """Shared memory that grows to the largest checkpoint staged so far.

    Not to be used by two threads at once.
    """

    def __init__(self) -> None:
        self.descriptor = os.memfd_create(NAME)
        self._map: mmap.mmap | None = None
        self._pinned: PinnedRange | None = None
        self._may_pin = True

    @property
    def size(self) -> int:
        """Bytes that it holds now."""
        return 0 if self._map is None else len(self._map)

    def reserve(self, size: int, *, pinned: bool = False) -> mmap.mmap:
        """Return the buffer with room for `size` bytes; its content is whatever was there.

        The file in memory has exactly `size` bytes then; the buffer may be longer, of which no
        more than that may be touched. The buffer from before is of no use any more.

        Args:
            size: Bytes, at least 1.
            pinned: Lock it for copies from a GPU, if CUDA does that.

        Raises:
            MemoryError: There is not that much memory.
        """
        whole = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        if self._pinned is not None and self._pinned.size != whole:
            self._unpin()  # pages that truncation frees would stay locked, no longer the file's
        if self._map is None or size > len(self._map):
            rounded = -(-size // _PAGE) * _PAGE
            if self._map is not None:
                self._map.close()
                self._map = None
            try:
                os.posix_fallocate(self.descriptor, 0, rounded)
            except OSError as error:
                raise MemoryError(
                    f"Staging a checkpoint of {size} bytes needs {rounded} bytes of memory, which "
                    f"are not there ({error.strerror}). Save synchronously, or less."
                ) from error
            self._map = mmap.mmap(self.descriptor, rounded)
            with contextlib.suppress(OSError, AttributeError):  # a hint; not every kernel takes it
                self._map.madvise(mmap.MADV_HUGEPAGE)
            with contextlib.suppress(OSError, ValueError):
                self._map.madvise(23)  # MADV_POPULATE_WRITE, Linux 5.14: fault it in now
        os.ftruncate(self.descriptor, size)  # what is read of the file is the checkpoint alone
        if pinned and self._pinned is None:
            self._pin(whole)
        return self._map

    def close(self) -> None:
        """Give the memory back; a process that still writes it out keeps it until it is done."""
        self._unpin()
        if self._map is not None:
            self._map.close()
            self._map = None
        os.close(self.descriptor)

    def _pin(self, size: int) -> None:
        from .pinned import PinnedRange

        assert self._map is not None
        if not self._may_pin:
            return
        try:
            self._pinned = PinnedRange(_address(self._map), size)
        except OSError as error:
            self._may_pin = False
            warnings.warn(f"{error} Copies from the GPU are slower.", stacklevel=4)

    def _unpin(self) -> None:
        if self._pinned is not None:
            self._pinned.release()
            self._pinned = None


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
