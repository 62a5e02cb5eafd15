"""What a script saved since it was asked last: the files of a folder that are new or changed.

A file is what it was as long as its size, its time of change and its inode are. Files are held
open from the moment they are seen, so that replacing or deleting them does not take them away.
Small ones are read at once, so that writing over them does not either; a large one that is written
over in its place has another time, and is not taken for what it was.
"""

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..atomic import TEMPORARY_PREFIX

State = tuple[int, int, int]
"""Bytes, time of change in nanoseconds, inode."""


@dataclass(frozen=True)
class Held:
    """A file that is held open, its state when it was seen, and all of it if it is small."""

    descriptor: int
    state: State
    data: bytes | None = None


class FileChanged(OSError):
    """A file was written over before it could be copied."""


def states(folder: Path) -> dict[str, State]:
    """Return the state of every file below `folder`, by its relative path."""
    found = {}
    for directory, _, names in os.walk(folder):
        for name in names:
            path = Path(directory, name)
            state = None if name.startswith(TEMPORARY_PREFIX) else state_of(path)
            if state is not None:
                found[path.relative_to(folder).as_posix()] = state
    return found


def state_of(path: Path) -> State | None:
    """Return the state of one file; None if there is none, or something else."""
    try:
        status = path.stat()
    except OSError:  # gone meanwhile
        return None
    return _state(status) if stat.S_ISREG(status.st_mode) else None


def changed(now: Mapping[str, State], before: Mapping[str, State]) -> dict[str, State]:
    """Return what of `now` is new or another than in `before`."""
    return {name: state for name, state in now.items() if before.get(name) != state}


def hold(folder: Path, names: Iterable[str], *, read: int = 0) -> dict[str, Held]:
    """Open files; the caller releases them. One that is gone meanwhile is left out.

    Args:
        folder: What the names are relative to.
        names: Of the files.
        read: How many bytes may be read here and now: files are, while they fit in.
    """
    held = {}
    for name in names:
        with contextlib.suppress(OSError):
            descriptor = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC)
            state, data = _state(os.fstat(descriptor)), None
            if state[0] <= read:
                data = os.pread(descriptor, state[0] + 1, 0)
                read -= state[0]
                if len(data) != state[0] or _state(os.fstat(descriptor)) != state:
                    data = None
            held[name] = Held(descriptor, state, data)
    return held


def release(held: Mapping[str, Held]) -> None:
    """Close files."""
    for each in held.values():
        os.close(each.descriptor)


def copy(name: str, held: Held, target: Path) -> None:
    """Copy a held file to `target`.

    Raises:
        FileChanged: It was written over since it was seen.
        OSError: The disk is full.
    """
    if held.data is not None:
        target.write_bytes(held.data)
        return
    with open(held.descriptor, "rb", closefd=False) as source, target.open("wb") as file:
        source.seek(0)
        shutil.copyfileobj(source, file, 2**20)
    if _state(os.fstat(held.descriptor)) != held.state:
        raise FileChanged(
            f"'{name}' was written over while it was uploaded. Save to a new name, or to another "
            "file that then replaces it."
        )


def stored_names(paths: Iterable[str]) -> dict[str, str]:
    """Return a name without folders, as stores take it, for each of `paths`; no two alike."""
    names: dict[str, str] = {}
    for path in sorted(paths):
        safe = re.sub(r"[^A-Za-z0-9_.=-]|\.(?=\.)", "_", path.replace("/", "."))
        safe = re.sub(r"^[^A-Za-z0-9_]", "_", safe)[-190:].lstrip(".=-") or "file"
        name, number = safe, 1
        while name in names.values():
            number += 1
            name = f"{safe}-{number}"
        names[path] = name
    return names


def _state(status: os.stat_result) -> State:
    return (status.st_size, status.st_mtime_ns, status.st_ino)
