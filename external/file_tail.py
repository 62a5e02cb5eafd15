"""The end of a file that may be too long to read."""

import os
from pathlib import Path

BYTES = 65536


def file_tail(path: Path) -> bytes:
    """Return the last 64 KiB of a file; its first line may be cut.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - BYTES))
        return file.read()
