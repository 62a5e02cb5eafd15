"""Staging memory: one buffer that a checkpoint is copied into, reused and never given back between.

Copying into fresh memory costs its page faults, ten times the copy itself; this memory is faulted
in once. It is a file in memory (memfd), so that another process can write it out.
"""

import contextlib
import mmap
import os

_PAGE = 1 << 21  # grow by huge pages: a little larger checkpoint does not fault everything anew


class StagingBuffer:
    """Shared memory that grows to the largest checkpoint staged so far.

    Not to be used by two threads at once.
    """

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("curitorch-staging")
        self._map: mmap.mmap | None = None

    @property
    def size(self) -> int:
        """Bytes that it holds now."""
        return 0 if self._map is None else len(self._map)

    def reserve(self, size: int) -> mmap.mmap:
        """Return the buffer with room for `size` bytes; its content is whatever was there.

        Raises:
            MemoryError: There is not that much memory.
        """
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
        return self._map

    def close(self) -> None:
        """Give the memory back; a process that still writes it out keeps it until it is done."""
        if self._map is not None:
            self._map.close()
            self._map = None
        os.close(self.descriptor)
