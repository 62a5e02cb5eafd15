"""A file of a checkpoint as one plain file, also where the store keeps it in parts."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from ...atomic import whole_file
from ...schema import UnreadableFile
from ..files.direct_file import DirectFile
from ..files.file_copy import copy_file
from ..sidecar import folder_name
from ..store import Store, StoredCheckpoint, StoredFile
from . import parts
from .local_store import LocalStore
from .parts import Part, PartsDigest, PartsSource

_PIECE = 1 << 20  # bytes; more do not stay in a core's cache between being read and hashed


def materialise(store: Store, checkpoint: StoredCheckpoint, name: str, target: Path) -> StoredFile:
    """Write the file `name` of `checkpoint` to `target`, as the plain file that was saved.

    Args:
        store: Where it is.
        checkpoint: From its `list` or `newest_valid`.
        name: Of the file, e.g. `model.ckpt`.
        target: Becomes the file, durable, or stays as it is.

    Raises:
        UnreadableFile: The file is missing, torn or altered.
        StoreUnreachable: The store did not answer.
        OSError: `target` cannot be written.
    """
    with whole_file(target) as temporary:
        temporary.unlink()
        if name in checkpoint.files:
            with TemporaryDirectory(prefix="curitorch-") as folder:
                return copy_file(store.fetch(checkpoint, name, Path(folder)), temporary)
        with open_parts(store, checkpoint, name) as (source, digest):
            with DirectFile(temporary, size=source.size) as file:
                offset = 0
                while offset < source.size:
                    room = file.room[: min(_PIECE, source.size - offset)]
                    source.read_into(room, offset)
                    digest.update(room)
                    file.take(len(room))
                    offset += len(room)
                digest.finish()
            return file.stored()


def is_in_parts(checkpoint: StoredCheckpoint, name: str) -> bool:
    """Return whether `checkpoint` has the file `name`, but not as one file."""
    return name not in checkpoint.files and name + parts.SUFFIX in checkpoint.files


@contextlib.contextmanager
def open_parts(
    store: Store, checkpoint: StoredCheckpoint, name: str
) -> Iterator[tuple[PartsSource, PartsDigest]]:
    """Open a file that is kept in parts: its bytes, and what compares them with the records.

    Raises:
        UnreadableFile: There is no such file, or its index is torn or altered, or a part is gone.
        StoreUnreachable: The store did not answer.
    """
    if not is_in_parts(checkpoint, name):
        raise UnreadableFile(
            f"The checkpoint of step {checkpoint.step} has no file {name!r}; it has "
            f"{', '.join(map(repr, checkpoint.files))}."
        )
    with TemporaryDirectory(prefix="curitorch-") as folder:
        index = read_index(store, checkpoint, name, Path(folder))
        files = {
            file: _path_of(store, checkpoint, file, Path(folder))
            for file in {part.file for part in index}
        }
        try:
            source = PartsSource(index, files)
        except FileNotFoundError as error:
            raise UnreadableFile(f"A part of {name!r} is missing: {error}.") from error
        with source:
            where = f"{name!r} of the checkpoint of step {checkpoint.step}"
            yield source, PartsDigest(index, where=where)


def read_index(store: Store, checkpoint: StoredCheckpoint, name: str, folder: Path) -> list[Part]:
    """Return what the file `name` consists of.

    Raises:
        UnreadableFile: The index is missing, torn or altered, or names files that are not there.
        StoreUnreachable: The store did not answer.
    """
    path = store.fetch(checkpoint, name + parts.SUFFIX, folder)
    index = parts.from_json(path.read_bytes(), where=f"'{path}'")
    missing = {part.file for part in index} - checkpoint.files.keys()
    if missing:
        raise UnreadableFile(f"'{path}' names files that are not there: {sorted(missing)}.")
    return index


def _path_of(store: Store, checkpoint: StoredCheckpoint, name: str, folder: Path) -> Path:
    """Return where a file is; in a local store nothing is read, as each part is compared later."""
    if isinstance(store, LocalStore):
        return store.root / folder_name(checkpoint.step) / name
    return store.fetch(checkpoint, name, folder)
