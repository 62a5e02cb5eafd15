"""A checkpoint by itself, outside of a store: a file that the caller names, and its sidecar beside.

`best.ckpt` and `best.json`, which is a store's sidecar of one file, called "checkpoint" there
whatever the path is; `best.ckpt` may be a directory, as some formats are.
"""

import contextlib
import os
import platform
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..atomic import TEMPORARY_PREFIX, fsync_directory, whole_file
from ..checksum import WRITTEN, Checksum, kind_of
from ..manifest import check_file
from ..schema import UnreadableFile
from .measuring import measured
from .sidecar import from_json, to_json
from .store import StoredCheckpoint, StoredFile

NAME = "checkpoint"


def sidecar_path(path: Path) -> Path:
    """Return the path of the sidecar of the checkpoint file `path`."""
    return path.with_suffix(".json")


@contextlib.contextmanager
def draft(path: Path) -> Iterator[Path]:
    """Yield a free name beside `path`, to write to unseen; what is there at the end goes.

    What writers of this machine left there when they were killed goes as well.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = TEMPORARY_PREFIX + re.sub(r"[^A-Za-z0-9.]", "_", platform.node())
    for leftover in path.parent.glob(f"{mine}-*"):
        process = leftover.name.removeprefix(f"{mine}-").split("-")[0]
        if process.isdigit() and not Path("/proc", process).exists():
            _remove(leftover)
    temporary = path.parent / f"{mine}-{os.getpid()}-{secrets.token_hex(4)}{path.suffix}"
    try:
        yield temporary
    finally:
        _remove(temporary)


def publish(
    temporary: Path, path: Path, file: StoredFile, *, step: int, details: Mapping[str, Any]
) -> StoredCheckpoint:
    """Give the whole, durable `temporary` the name `path`, then write its sidecar.

    A file that was at `path` is replaced; its sidecar goes first, so that it never describes the
    new one.

    Raises:
        OSError: `path` cannot be replaced: it is a directory, say.
    """
    stored = StoredCheckpoint(step, {NAME: file}, dict(details))
    content = to_json(stored)
    sidecar_path(path).unlink(missing_ok=True)
    temporary.replace(path)
    fsync_directory(path.parent)
    with whole_file(sidecar_path(path)) as written:
        written.write_bytes(content)
    return stored


def read(path: Path) -> StoredCheckpoint:
    """Read the sidecar of `path` and check the size of the file.

    Raises:
        FileNotFoundError: There is no sidecar: the checkpoint was never finished.
        UnreadableFile: The sidecar or the file is torn, altered or too new.
    """
    sidecar = sidecar_path(path)
    stored = from_json(sidecar.read_bytes(), where=f"'{sidecar}'")
    if NAME not in stored.files:
        raise UnreadableFile(f"'{sidecar}' is a sidecar of a store, not of '{path}'.")
    if not path.is_dir():
        check_file(path, size=stored.files[NAME].bytes, digest="", read=False)
    return stored


def verify(path: Path) -> StoredCheckpoint:
    """Read the sidecar and all of the file, and compare.

    Raises:
        FileNotFoundError: There is no sidecar.
        UnreadableFile: The sidecar or the file is torn, altered or too new.
    """
    stored = read(path)
    recorded = stored.files[NAME]
    if not path.is_dir():
        check_file(path, size=recorded.bytes, digest=recorded.checksum, read=True)
    elif measure(path, kind=kind_of(recorded.checksum)) != recorded:
        raise UnreadableFile(f"'{path}' does not have its recorded checksum: it was altered.")
    return stored


def remove(path: Path) -> None:
    """Remove a checkpoint: its sidecar first, so that half of one never counts."""
    sidecar_path(path).unlink(missing_ok=True)
    _remove(path)


def measure(path: Path, *, kind: str = WRITTEN) -> StoredFile:
    """Return the size and checksum of a file, or of all files of a directory with their names."""
    if not path.is_dir():
        return measured(path, kind=kind)
    size, digest = 0, Checksum(kind)
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        inner = measured(file, kind=kind)
        size += inner.bytes
        digest.update(f"{inner.checksum} {file.relative_to(path).as_posix()}\n".encode())
    return StoredFile(size, digest.text)


def make_durable(path: Path) -> None:
    """Fsync a file, or all files and folders of a directory."""
    inner = [*path.rglob("*"), path] if path.is_dir() else [path]
    for each in inner:
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
