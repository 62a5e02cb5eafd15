"""Writing files so that they appear whole: written beside, fsynced, renamed into place.

A reader sees the old file or the new one, never a part; after a power loss too.
"""

import contextlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

TEMPORARY_PREFIX = ".incomplete-"
"""What a file is called while it is being written; leftovers of killed writers carry this name."""


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on leaving, what was written there becomes `path`.

    Raises:
        OSError: Writing failed (a full disk, say): the message names `path`, which is as it was,
            and nothing is left over.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    name = f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(8)}{path.suffix}"
    temporary = path.with_name(name)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)  # os.umask would change it for all threads
    os.close(descriptor)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode)  # it may be another file by now, made in its place
        temporary.replace(path)
        fsync_directory(path.parent)
    except OSError as error:  # a write, unlike an open, does not tell of which file
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, record: Mapping[str, object]) -> None:
    """Write `record` as indented JSON; readers see all of it or what was there before."""
    text = json.dumps(record, indent=2, default=str) + "\n"
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def copy_or_link(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`: a hard link where the file system has them."""
    with whole_file(target) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(source, temporary)


def fsync_directory(directory: Path) -> None:
    """Make a rename in `directory` survive a power loss."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(directory: Path) -> None:
    """Delete what killed writers left half-written in `directory`; call it while none can run."""
    for leftover in directory.glob(f"{TEMPORARY_PREFIX}*"):
        leftover.unlink(missing_ok=True)
