"""A draft: the folder of a local store in which a writer prepares a checkpoint, unseen.

`.draft-9f8a1c/` holds the files and, for as long as the writer lives, a lock that the operating
system releases when it dies, however it dies: so the next writer knows what it may sweep away.
"""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ...atomic import fsync_directory
from ...checksum import WRITTEN, kind_of
from ...schema import UnreadableFile
from ..files.file_copy import copy_file
from ..measuring import measured
from ..sidecar import folder_name, sidecar_name, step_of
from ..store import StoredFile
from .clone import clone

PREFIX = ".draft-"
_LOCK = ".writer"


class Draft:
    """What is not a checkpoint yet. Made and published under the store's lock."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / (PREFIX + secrets.token_hex(8))
        self._lock = FileLock(self.folder / _LOCK, thread_local=False)
        self.folder.mkdir()
        try:
            self._lock.acquire(timeout=0)
        except BaseException:
            self.discard()
            raise

    def add(
        self, name: str, source: Path, *, move: bool = False, known: StoredFile | None = None
    ) -> StoredFile:
        """Put a durable copy of `source` into the draft, reading it once.

        A file of another checkpoint here, or one to be moved, is hard-linked; else it is a clone,
        which takes no room either, or where the file system has none, a copy.

        Args:
            name: What the file is called in the checkpoint.
            source: A local file.
            move: Share its bytes, if it is on this file system; `source` itself stays for now.
            known: What its writer says about it; a shared file is then not read.

        Raises:
            UnreadableFile: It is not what `known` says.
            OSError: It cannot be read, or the disk is full.
        """
        target = self.folder / name
        kind = kind_of(known.checksum) if known else WRITTEN
        found = None
        if (move or self.is_in_store(source)) and _link(source, target):
            found = known or measured(target)
            if target.stat().st_size != found.bytes:
                found = None
            with target.open("rb") as file:
                os.fsync(file.fileno())
        elif clone(source, target):
            found = measured(target, kind=kind)  # not of the source, which may change
        else:
            found = copy_file(source, target, kind=kind)
        if found is None or (known is not None and found != known):
            raise UnreadableFile(f"'{source}' is not what its writer recorded: torn or altered.")
        return found

    def publish(self, step: int, sidecar: bytes) -> None:
        """Make the draft the checkpoint of `step`, of which there is none.

        Raises:
            FileExistsError: There is one after all: the store's lock does not work here.
        """
        marker = self.root / sidecar_name(step)
        folder = self.root / folder_name(step)
        with durable_file(self.root, sidecar) as temporary:
            self._lock.release()
            (self.folder / _LOCK).unlink(missing_ok=True)
            fsync_directory(self.folder)
            self.folder.rename(folder)  # fails on one that has files in it
            try:
                fsync_directory(self.root)  # the sidecar must not be durable before the files are
                _rename_to_new(temporary, marker)
            except BaseException as error:
                if isinstance(error, FileExistsError) or not marker.exists():
                    folder.rename(self.folder)
                raise
        fsync_directory(self.root)

    def discard(self) -> None:
        """Remove what was not published; nothing happens if it was."""
        self._lock.release()
        shutil.rmtree(self.folder, ignore_errors=True)

    def is_in_store(self, source: Path) -> bool:
        """Return whether `source` is a file of a checkpoint here, which nobody may change."""
        folder = source.resolve().parent
        return folder.parent == self.root.resolve() and step_of(folder.name) is not None


@contextlib.contextmanager
def durable_file(root: Path, content: bytes) -> Iterator[Path]:
    """Yield the path of a temporary file in `root` that holds `content` also after a power loss.

    It is gone at the end, if it was not renamed. To be used under the store's lock.
    """
    temporary = root / (PREFIX + secrets.token_hex(8) + ".json")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def may_have_leftovers(root: Path) -> bool:
    """Return whether there is anything in `root` that `leftovers` would look at."""
    return bool(_unfinished(root))


def leftovers(root: Path) -> list[Path]:
    """Return what writers that are dead left in `root`. To be used under the store's lock."""
    return [path for path in _unfinished(root) if _is_free(path / _LOCK)]


def _unfinished(root: Path) -> list[Path]:
    """Return drafts, and folders of checkpoints without a sidecar."""
    with os.scandir(root) as entries:
        found = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
    return [
        root / name
        for name, is_folder in found.items()
        if name.startswith(PREFIX)
        or (is_folder and step_of(name) is not None and f"{name}.json" not in found)
    ]


def trash(root: Path, path: Path) -> Path:
    """Rename `path` to a draft without a writer, which anybody may remove; returns that."""
    return path.rename(root / (PREFIX + secrets.token_hex(8)))


def remove(path: Path) -> None:
    """Remove a leftover; somebody else may be doing the same."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_free(path: Path) -> bool:
    """Return whether nobody holds the lock `path`, which need not exist."""
    if not path.exists():
        return True
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    except OSError:  # it is gone, or somebody else's
        return not path.exists()
    lock.release()
    return True


def _link(source: Path, target: Path) -> bool:
    """Make `target` the same file as `source`; returns whether that is possible here."""
    if source.is_symlink() or not source.is_file():
        return False
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        return False
    return True


def _rename_to_new(path: Path, new: Path) -> None:
    """Give `path` the name `new`, which nothing may have; `path` may stay as another name."""
    try:
        os.link(path, new)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: the store's lock has to do
        path.rename(new)
