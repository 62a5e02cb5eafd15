"""The checkpoints that exist in the root of a local store: reading their sidecars and files."""

import contextlib
import errno
from pathlib import Path

from ...manifest import check_file
from ...schema import UnreadableFile
from ..sidecar import OtherSchema, folder_name, from_json, step_of
from ..store import StoredCheckpoint, check_name

BROKEN = {errno.EIO, errno.EUCLEAN, errno.EBADMSG}
"""The numbers of errors that a broken disk causes, and what ext4 and XFS make of them."""

_CANNOT_BE_READ = {*BROKEN, errno.ENOENT, errno.ENOTDIR, errno.ESTALE}


def read_all(root: Path) -> tuple[list[StoredCheckpoint], list[Exception]]:
    """Return the checkpoints of one moment, in order of their steps, and why others are none.

    Sizes are compared, contents are not read.
    """
    while True:
        sidecars = _sidecars(root)
        found: list[StoredCheckpoint] = []
        left_out: list[Exception] = []
        for step, path, _ in sorted(sidecars):
            try:
                checkpoint = read_sidecar(path, step)
                check_files(root, checkpoint, read=False)
                found.append(checkpoint)
            except (FileNotFoundError, UnreadableFile) as error:
                left_out.append(error)
        if _sidecars(root) == sidecars:  # or else others were at it, and this is no snapshot
            return found, left_out


def unknown(root: Path) -> dict[int, str]:
    """Return, by step, why only another curitorch can read a checkpoint."""
    found = {}
    for step, path, _ in _sidecars(root):
        try:
            read_sidecar(path, step)
        except OtherSchema as error:
            found[step] = str(error)
        except (FileNotFoundError, UnreadableFile):
            continue  # none at all
    return found


def read_sidecar(path: Path, step: int) -> StoredCheckpoint:
    """Read the sidecar `path`, which is named for `step`.

    Raises:
        FileNotFoundError: There is none.
        UnreadableFile: It is torn, altered or foreign, or the disk cannot read it.
    """
    if path.is_symlink() or path.is_dir():
        raise UnreadableFile(f"'{path}' is a link or a directory, expected a file.")
    try:
        data = path.read_bytes()
    except OSError as error:
        if error.errno not in BROKEN:
            raise
        raise UnreadableFile(f"'{path}' cannot be read ({error.strerror}).") from error
    return from_json(data, where=f"'{path}'", step=step)


def check_files(root: Path, checkpoint: StoredCheckpoint, *, read: bool) -> None:
    """Check that the files have the recorded sizes and, if `read`, the recorded checksums.

    Raises:
        UnreadableFile: One is missing, torn or altered, or the disk cannot read it.
    """
    folder = root / folder_name(checkpoint.step)
    for name, file in checkpoint.files.items():
        path = folder / check_name(name, what="File")
        if folder.is_symlink() or path.is_symlink():
            raise UnreadableFile(f"'{path}' is behind a link, which a store does not follow.")
        try:
            check_file(path, size=file.bytes, digest=file.checksum, read=read)
        except OSError as error:
            if error.errno not in _CANNOT_BE_READ:
                raise
            raise UnreadableFile(f"'{path}' cannot be read ({error.strerror}).") from error


def _sidecars(root: Path) -> set[tuple[int, Path, tuple[int, int]]]:
    """Return the step and path of each sidecar, and what changes when it is another one."""
    found = set()
    for path in root.glob("step-*.json"):
        step = step_of(path.name)
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
            if step is not None:
                about = path.lstat()
                found.add((step, path, (about.st_ino, about.st_mtime_ns)))
    return found
