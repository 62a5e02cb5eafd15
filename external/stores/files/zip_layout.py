"""Where the records of a torch file lie, read from its zip directory; without torch."""

import io
import os
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from ...schema import UnreadableFile

_HEADER = struct.Struct("<4s22xHH")  # signature, length of the name, of the extra field


class Source(Protocol):
    """Bytes that can be read at any place."""

    @property
    def size(self) -> int:
        """How many there are."""

    def read_into(self, target: memoryview, offset: int) -> None:
        """Fill `target` with the bytes from `offset` on.

        Raises:
            OSError: They cannot be read.
            UnreadableFile: They are not there.
        """


class FileSource:
    """The bytes of a file. A context: it closes the file.

    Raises:
        FileNotFoundError: There is none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self.descriptor).st_size
        os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def read_into(self, target: memoryview, offset: int) -> None:
        """Fill `target` with the bytes from `offset` on; see `Source`."""
        while target:
            count = os.preadv(self.descriptor, [target], offset)
            if count == 0:
                raise UnreadableFile(f"'{self._path}' ends at byte {offset}: it was torn.")
            target, offset = target[count:], offset + count

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self.descriptor)


def records(source: Source) -> Iterator[tuple[str, int, int]]:
    """Yield the name, offset and size of each record, in the order of the file.

    Raises:
        ValueError: It is no zip archive without compression, as torch writes them, or a torn one.
        OSError: It cannot be read.
    """
    try:
        entries = zipfile.ZipFile(_Seekable(source)).infolist()
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"it is no archive of torch: {error}") from error
    position = 0
    header = bytearray(_HEADER.size)
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.compress_type != zipfile.ZIP_STORED or entry.header_offset < position:
            raise ValueError(f"its entry {entry.filename!r} is not a plain file of its own")
        source.read_into(memoryview(header), entry.header_offset)
        signature, name_length, extra_length = _HEADER.unpack(header)
        offset = entry.header_offset + len(header) + name_length + extra_length
        position = offset + entry.file_size
        if signature != b"PK\3\4" or position > source.size:
            raise ValueError(f"its entry {entry.filename!r} has no header")
        yield entry.filename.partition("/")[2], offset, entry.file_size


class _Seekable(io.RawIOBase):
    """A source as the file that `zipfile` wants."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._position = 0

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = (0, self._position, self._source.size)[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._source.size - self._position)
        found = bytearray(left if size < 0 else min(size, left))
        self._source.read_into(memoryview(found), self._position)
        self._position += len(found)
        return bytes(found)
