"""The index of a checkpoint's file that is kept in parts, some of which other checkpoints share.

The file `model.ckpt` is not there as one; `model.ckpt.parts` says what it consists of:

    {"schema": 1, "parts": [
      {"bytes": 4096, "checksum": "xxh3:9f86…", "file": "model.ckpt.of-00000240", "at": 0},
      {"bytes": 900000, "checksum": "xxh3:d0fe…", "file": "model.ckpt.of-00000120", "at": 4096}]}

Each part is `bytes` long and lies in the checkpoint's file `file`, from byte `at` on; in their
order they are the bytes of a plain torch file.
"""

import bisect
import itertools
import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from ...checksum import Checksum, kind_of
from ...schema import UnreadableFile, check_schema
from ..files.zip_layout import FileSource
from ..store import check_name

SCHEMA = 1
SUFFIX = ".parts"


@dataclass(frozen=True)
class Part:
    """A run of bytes, which lies in `file` at `at`."""

    bytes: int
    checksum: str
    file: str
    at: int


def to_json(parts: list[Part]) -> bytes:
    """Return the index of `parts`."""
    record = {"schema": SCHEMA, "parts": [vars(part) for part in parts]}
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def from_json(data: bytes, *, where: str) -> list[Part]:
    """Return the parts of an index.

    Args:
        data: All of it.
        where: Names it in messages, e.g. its quoted path.

    Raises:
        UnreadableFile: It is torn, altered or of a newer curitorch.
    """
    try:
        record = json.loads(data)
        check_schema(record, where=where, newest=SCHEMA)
        parts = [Part(**entry) for entry in record["parts"]]
        for part in parts:
            kind_of(part.checksum, where=where)
            check_name(part.file, what="File")
            for number in (part.bytes, part.at):
                if type(number) is not int or number < 0:
                    raise ValueError(f"{part} is no part")
    except UnreadableFile:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UnreadableFile(f"{where} is not an index of parts ({error!r}).") from error
    return parts


class PartsSource:
    """The bytes of a file that is kept in parts, see `zip_layout.Source`. A context.

    Args:
        parts: What it consists of.
        files: Where the files are that have them.

    Raises:
        FileNotFoundError: One is not there.
    """

    def __init__(self, parts: list[Part], files: Mapping[str, Path]) -> None:
        self._parts = parts
        self._ends = list(itertools.accumulate(part.bytes for part in parts))
        self.size = self._ends[-1] if parts else 0
        with ExitStack() as opened:
            self._sources = {
                name: opened.enter_context(FileSource(files[name]))
                for name in {part.file for part in parts}
            }
            self._opened = opened.pop_all()

    def read_into(self, target: memoryview, offset: int) -> None:
        """Fill `target` with the bytes from `offset` on.

        Raises:
            UnreadableFile: They are not there.
            OSError: They cannot be read.
        """
        number = bisect.bisect_right(self._ends, offset)
        while target:
            if number == len(self._parts):
                raise UnreadableFile(f"The parts end at byte {self.size}: one is torn.")
            part = self._parts[number]
            inside = offset - (self._ends[number] - part.bytes)
            count = min(len(target), part.bytes - inside)
            self._sources[part.file].read_into(target[:count], part.at + inside)
            target, offset, number = target[count:], offset + count, number + 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._opened.close()


class PartsDigest:
    """Is told of all bytes in their order, and compares each part's checksum when it is whole.

    Args:
        parts: What the bytes consist of.
        where: Names the file in messages, e.g. its quoted path.
    """

    def __init__(self, parts: list[Part], *, where: str) -> None:
        self._parts = iter([part for part in parts if part.bytes])
        self._where = where
        self._now: Part | None = None
        self._left = 0
        self._begin()

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes.

        Raises:
            UnreadableFile: A part is not what it was.
        """
        rest = memoryview(data)
        while rest:
            if self._now is None:
                raise UnreadableFile(f"{self._where} is longer than its parts.")
            count = min(len(rest), self._left)
            self._digest.update(rest[:count])
            rest, self._left = rest[count:], self._left - count
            if self._left == 0:
                if self._digest.text != self._now.checksum:
                    raise UnreadableFile(
                        f"{self._where} has a part in '{self._now.file}' that does not have its "
                        "recorded checksum: it was altered."
                    )
                self._begin()

    def finish(self) -> None:
        """Say that this was all.

        Raises:
            UnreadableFile: It was not.
        """
        if self._now is not None:
            raise UnreadableFile(f"{self._where} is shorter than its parts: torn.")

    def _begin(self) -> None:
        self._now = next(self._parts, None)
        if self._now is not None:
            self._left = self._now.bytes
            self._digest = Checksum(kind_of(self._now.checksum))
