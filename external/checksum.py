"""Checksums of files, as records carry them: `xxh3:` and 32 hex digits, or `sha256:` and 64.

    xxh3:99aa06d3014798d86001c324468d497f    written by default: XXH3, 128 bits
    sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855    of older records

Both find bytes that were torn, altered or swapped by accident: by a disk, a network, a killed
writer, a person. XXH3 does so 30 times as fast, but whoever may write to a file can also make
another one with the same XXH3, or just write the record anew: against that there are the file
system's permissions, the service's token and TLS, not this.
"""

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from .schema import UnreadableFile

WRITTEN = "xxh3"
"""The kind of checksum that new records get."""

_PIECE = 1 << 20  # bytes; more do not stay in a core's cache between being read and hashed
_TEXT = re.compile(r"([a-z0-9]{1,20}):([0-9a-f]{8,128})")


class UnknownChecksum(UnreadableFile):
    """A record names a kind of checksum that this curitorch cannot compute."""


class _Digest(Protocol):
    def update(self, data: memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


def _xxh3() -> _Digest:
    import xxhash  # only here: most records are read without a file being hashed

    return xxhash.xxh3_128()


_KINDS: dict[str, tuple[Callable[[], _Digest], int]] = {  # how it is computed, its hex digits
    "xxh3": (_xxh3, 32),
    "sha256": (hashlib.sha256, 64),
}


class Checksum:
    """Computes the checksum of bytes that come piece by piece.

    Args:
        kind: `xxh3` or `sha256`.

    Raises:
        UnknownChecksum: It is neither.
    """

    def __init__(self, kind: str = WRITTEN) -> None:
        if kind not in _KINDS:
            raise UnknownChecksum(_unknown(kind, "A record"))
        self.kind = kind
        self.bytes = 0
        """How many came so far."""
        self._digest = _KINDS[kind][0]()

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes; large pieces release the interpreter lock."""
        view = memoryview(data)
        self._digest.update(view)
        self.bytes += view.nbytes

    @property
    def text(self) -> str:
        """What a record says about the bytes so far, e.g. `xxh3:99aa06…`."""
        return f"{self.kind}:{self._digest.hexdigest()}"


def checksum(path: Path, *, kind: str = WRITTEN) -> str:
    """Return the checksum of a file's bytes as records have it.

    Raises:
        OSError: The file cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_through(descriptor, kind=kind).text
    finally:
        os.close(descriptor)


def read_through(descriptor: int, *, kind: str = WRITTEN, most: int | None = None) -> Checksum:
    """Return the checksum of an open file from its first byte on; its position stays.

    Args:
        descriptor: Of the file.
        kind: `xxh3` or `sha256`.
        most: How many bytes to read at most; None for all.

    Raises:
        OSError: The file cannot be read.
    """
    found = Checksum(kind)
    buffer = memoryview(bytearray(_PIECE))
    while most is None or found.bytes < most:
        room = buffer if most is None else buffer[: most - found.bytes]
        count = os.preadv(descriptor, [room], found.bytes)
        if not count:
            break
        found.update(room[:count])
    return found


def matches(path: Path, recorded: str) -> bool:
    """Return whether the file `path` has the `recorded` checksum, of whatever kind that is.

    Raises:
        UnreadableFile: `recorded` is no checksum, or of an unknown kind.
        OSError: The file cannot be read.
    """
    return checksum(path, kind=kind_of(recorded, where=f"The record of '{path}'")) == recorded


def kind_of(recorded: str, *, where: str = "A record") -> str:
    """Return the kind of a recorded checksum, `xxh3` or `sha256`.

    Args:
        recorded: As it stands in the record.
        where: Names the record in messages.

    Raises:
        UnknownChecksum: A newer curitorch wrote it.
        UnreadableFile: It is no checksum at all.
    """
    found = _TEXT.fullmatch(recorded)
    if found and found[1] not in _KINDS:
        raise UnknownChecksum(_unknown(found[1], where))
    if not found or len(found[2]) != _KINDS[found[1]][1]:
        raise UnreadableFile(f"{where} has {recorded!r}, which is not a checksum: torn or altered.")
    return found[1]


def _unknown(kind: str, where: str) -> str:
    return (
        f"{where} has a checksum of the kind {kind!r}, this curitorch knows {', '.join(_KINDS)}. "
        "Upgrade it: pip install --upgrade curitorch."
    )
