"""Sizes and checksums of local files, as the records of a store have them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..checksum import WRITTEN, kind_of, read_through
from .sidecar import to_json
from .store import StoredCheckpoint, StoredFile


def measured(path: Path, *, kind: str = WRITTEN) -> StoredFile:
    """Read all of a file; return its size and its checksum of `kind`.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        found = read_through(file.fileno(), kind=kind)
    return StoredFile(found.bytes, found.text)


def is_same(there: StoredCheckpoint, ours: StoredCheckpoint, paths: Mapping[str, Path]) -> bool:
    """Return whether `ours` is the checkpoint `there`: step, details and the bytes of all files.

    Where an older writer recorded another kind of checksum, the file of `ours` is read again.

    Args:
        there: What a store has.
        ours: What may be the same.
        paths: Of the files of `ours`, by their names.

    Raises:
        OSError: A file cannot be read.
    """
    alike = replace(ours, files=recorded_like(there.files, ours.files, paths), upload="")
    return to_json(replace(there, upload="")) == to_json(alike)


def recorded_like(
    there: Mapping[str, StoredFile], ours: Mapping[str, StoredFile], paths: Mapping[str, Path]
) -> dict[str, StoredFile]:
    """Return `ours` with checksums of the kinds that `there` has, to be compared with it.

    A file whose kinds agree, or which only one of them has, is not read.
    """
    files = dict(ours)
    for name in ours.keys() & there.keys():
        kind = kind_of(there[name].checksum)
        if kind != kind_of(ours[name].checksum):
            files[name] = measured(Path(paths[name]), kind=kind)
    return files
