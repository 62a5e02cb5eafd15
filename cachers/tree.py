"""A file or directory as one artifact: the sizes of its files, and how it gets to its place."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from ..external.atomic import TEMPORARY_PREFIX, fsync_directory
from ..external.schema import UnreadableFile


def sizes(path: Path) -> dict[str, int]:
    """Return the size in bytes of every file in a directory by its relative path.

    A single file is called `"."`.

    Raises:
        FileNotFoundError: There is no such path, or a link in it leads nowhere.
    """
    if not path.is_dir():
        return {".": path.stat().st_size}
    return {
        file.relative_to(path).as_posix(): file.stat().st_size
        for file in sorted(path.rglob("*"))
        if not file.is_dir()
    }


def check_sizes(path: Path, recorded: Mapping[str, int]) -> None:
    """Check that every recorded file is there with its size; further files do not matter.

    Raises:
        UnreadableFile: A file is missing or has another size, or the record is not one.
    """
    if not isinstance(recorded, Mapping):
        raise UnreadableFile(f"The recorded sizes of '{path}' are {recorded!r}, expected a table.")
    for name, size in recorded.items():
        file = path if name == "." else path / name
        if not file.is_file():
            raise UnreadableFile(f"'{file}' is missing, recorded are {size} bytes: torn.")
        if file.stat().st_size != size:
            raise UnreadableFile(
                f"'{file}' has {file.stat().st_size} bytes, recorded are {size}: torn or altered."
            )


def copy_whole(
    source: Path,
    target: Path,
    *,
    leave_out: Iterable[str] = (),
    link: Callable[[Path], bool] = lambda path: False,
    verify: Callable[[Path], object] = lambda path: None,
) -> None:
    """Copy a file or directory; `target` appears whole or stays as it was.

    Args:
        source: What to copy; links in it are followed.
        target: Its place, replaced if there is something.
        leave_out: Name patterns of files that are not copied.
        link: Which files may be shared with `source` by a hard link where that works, because
            they are only ever replaced, never written to.
        verify: Called with the copy before it takes its place; it raises if that must not be.

    Raises:
        ValueError: One of the two lies in the other.
        OSError: Copying failed; nothing is left over.
    """
    _apart(source, target)

    def copy(origin: str, copied: str) -> str:
        if link(Path(origin)):
            with contextlib.suppress(OSError):  # another file system, or one without hard links
                os.link(Path(origin).resolve(), copied)
                return copied
        shutil.copy2(origin, copied)
        with Path(copied).open("rb") as file:
            os.fsync(file.fileno())
        return copied

    with _place_beside(target) as beside:
        if source.is_dir():
            ignore = shutil.ignore_patterns(*leave_out, f"{TEMPORARY_PREFIX}*")
            shutil.copytree(source, beside, copy_function=copy, ignore=ignore)
        else:
            copy(str(source), str(beside))
        verify(beside)
        _replace(beside, target)


def move_whole(source: Path, target: Path) -> None:
    """Move a file or directory; over the border of a file system it is copied, then deleted.

    Raises:
        ValueError: One of the two lies in the other.
        OSError: Moving failed; nothing was lost.
    """
    _apart(source, target)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        _replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        copy_whole(source, target)
        _remove(source)


@contextlib.contextmanager
def _place_beside(target: Path) -> Iterator[Path]:
    """Yield a path on the file system of `target`, where nothing is; it is emptied at the end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY_PREFIX}{os.getpid()}-", dir=target.parent))
    try:
        yield folder / target.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _replace(source: Path, target: Path) -> None:
    """Rename `source` to `target`; a directory that is there goes away, or back if that fails."""
    if not target.is_dir() and not (source.is_dir() and target.exists()):
        source.replace(target)
    else:
        with _place_beside(target) as old:
            target.rename(old)
            try:
                source.rename(target)
            except OSError:
                old.rename(target)
                raise
    fsync_directory(target.parent)


def _apart(source: Path, target: Path) -> None:
    here, there = source.resolve(), target.resolve()
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise ValueError(
            f"'{source}' cannot be put in the place of '{target}': one lies in the other. Write it "
            "somewhere else, or straight to its place."
        )


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
