"""What of a file has to be written, when the checkpoint before has some of it.

Big tensors are compared by their checksums, never by which tensor they are.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from ...checksum import Checksum
from ..local.parts import Part

BIG = 1 << 20
"""Bytes from which on a tensor's storage is compared, and may be shared."""

_WORTHWHILE = 0.1  # of all bytes; to share less saves less than a plain file is worth
_FULL = 0.5  # of a file; one that has less of what is needed is not shared any longer


@dataclass(frozen=True)
class Stretch:
    """A run of bytes of a file that is to be saved: one big storage, or what is between them."""

    size: int
    views: Callable[[], Iterable[bytes | memoryview]]
    is_big: bool

    def checksum(self) -> str:
        """Read all of it."""
        digest = Checksum()
        for view in self.views():
            digest.update(view)
        return digest.text


@dataclass(frozen=True)
class Before:
    """The checkpoint before: its step, what its file consists of, and how large its files are."""

    step: int
    index: list[Part]
    sizes: Mapping[str, int]


@dataclass(frozen=True)
class Plan:
    """What a new checkpoint consists of.

    Attributes:
        index: The parts, one for each stretch.
        own: The new file, which holds the parts that name it, in their order.
        shared: The files of the checkpoint before, by what they are called in the new one.
    """

    index: list[Part]
    own: str
    shared: dict[str, str]


def plan(stretches: list[Stretch], name: str, step: int, before: Before | None) -> Plan:
    """Decide what is shared with the checkpoint `before`; without it nothing is.

    Args:
        stretches: Of the file that is to be saved.
        name: Of the file; it is called so if it becomes a plain one.
        step: Of the new checkpoint.
        before: The newest checkpoint.
    """
    parts = [Part(stretch.size, stretch.checksum(), name, 0) for stretch in stretches]
    found: dict[tuple[int, str], Part] = {}
    if before is not None:
        big = {_content(p) for p, s in zip(parts, stretches, strict=True) if s.is_big}
        found = _worthwhile(before, big, sum(part.bytes for part in parts))
    names = {p.file: p.file if p.file != name else _of(name, before) for p in found.values()}
    own = f"{name}.of-{step:08d}" if found else name
    if own in names.values():
        found, names, own = {}, {}, name
    index: list[Part] = []
    end = 0
    for part in parts:
        there = found.get(_content(part))
        if there is None:
            index.append(replace(part, file=own, at=end))
            end += part.bytes
        else:
            index.append(replace(there, file=names[there.file]))
    return Plan(index, own, {new: old for old, new in names.items()})


def _worthwhile(
    before: Before, wanted: set[tuple[int, str]], size: int
) -> dict[tuple[int, str], Part]:
    """Return the parts of `before` that are wanted and in files worth keeping, by content."""
    by_file: dict[str, dict[tuple[int, str], Part]] = defaultdict(dict)
    for part in before.index:
        if _content(part) in wanted:
            by_file[part.file][_content(part)] = part
    found: dict[tuple[int, str], Part] = {}
    for file, parts in by_file.items():
        if sum(p.bytes for p in parts.values()) >= _FULL * before.sizes[file]:
            found |= parts
    return found if sum(p.bytes for p in found.values()) >= _WORTHWHILE * size else {}


def _content(part: Part) -> tuple[int, str]:
    return part.bytes, part.checksum


def _of(name: str, before: Before | None) -> str:
    assert before is not None
    return f"{name}.of-{before.step:08d}"
