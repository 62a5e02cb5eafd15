"""Whether a file's bytes are in the page cache: mincore(2), which brings nothing there itself.

A read that must not wait (`RWF_NOWAIT`) has the kernel read ahead first, and now and then finds
what it has fetched.
"""

import ctypes
import mmap


def is_cached(descriptor: int, at: int = 0) -> bool:
    """Return whether the page with byte `at` is in the page cache, or the kernel does not tell.

    It tells who owns the file or may write to it.

    Raises:
        OSError, ValueError: The file is shorter, or one that cannot be mapped.
    """
    here = at // mmap.PAGESIZE * mmap.PAGESIZE
    # Writable, as ctypes takes the address of nothing else; private, so that nothing is written.
    allowed = mmap.PROT_READ | mmap.PROT_WRITE
    with mmap.mmap(descriptor, 1, mmap.MAP_PRIVATE, allowed, offset=here) as page:
        first, answer = ctypes.c_char.from_buffer(page), ctypes.c_ubyte()
        try:
            address = ctypes.c_void_p(ctypes.addressof(first))
            failed = ctypes.CDLL(None).mincore(address, ctypes.c_size_t(1), ctypes.byref(answer))
        finally:
            del first  # or the mapping could not be closed
    return bool(failed or answer.value & 1)
