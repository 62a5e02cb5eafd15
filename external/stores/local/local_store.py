"""A store in a directory of this machine, or of a file system that several machines share.

<root>/step-00000120/model.ckpt     the files of a checkpoint
<root>/step-00000120.json           its sidecar: the checkpoint exists while this does
<root>/lease, lease.json            who may write; the newest token
<root>/changes                      the lock under which names change, for moments
<root>/.draft-…                     what is being written, or being removed
"""

import builtins
import contextlib
import errno
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from filelock import FileLock

from ...atomic import fsync_directory
from ...schema import UnreadableFile
from ..measuring import is_same
from ..sidecar import OtherSchema, folder_name, from_json, sidecar_name, to_json
from ..store import CheckpointExists, Lease, Store, StoredCheckpoint, StoredFile, check_step
from .committed import check_files, read_all, read_sidecar, unknown
from .draft import Draft, leftovers, may_have_leftovers, remove, trash
from .lease_file import LeaseFile

_POLL = 0.005  # seconds between two tries to get the lock of changes
_MAY_NOT = {errno.EACCES, errno.EPERM, errno.EROFS}


class LocalStore(Store):
    """Keeps checkpoints in the directory `root`, which is made if it is not there.

    Files are kept as they are: `torch.load(root / "step-00000120" / "model.ckpt")` opens one.

    Raises:
        NotADirectoryError: `root` is something else.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).absolute()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise NotADirectoryError(
                f"'{root}' is not a directory, which a local store needs. Name another root."
            ) from None
        self._leases = LeaseFile(self.root, self._changes)
        try:
            self._sweep()
        except OSError as error:  # of somebody who may only read
            if error.errno not in _MAY_NOT:
                raise

    def put(
        self,
        step: int,
        files: Mapping[str, Path],
        *,
        details: Mapping[str, Any] | None = None,
        lease: Lease | None = None,
        move: bool = False,
        known: Mapping[str, StoredFile] | None = None,
    ) -> StoredCheckpoint:
        """Store `files` as the checkpoint of `step`, as `Store.put` says.

        A file that `fetch` returned is shared with the checkpoint that it came from, not copied;
        others are cloned where the file system has clones (XFS, Btrfs), which takes no room.

        Args:
            step: Optimizer steps done; at least 0.
            files: What the checkpoint consists of.
            details: Plain JSON data for the sidecar.
            lease: From `lease()`.
            move: Take the files over: no bytes are copied on the same file system, and they are
                gone from where they were when the checkpoint exists, not before.
            known: The size and checksum of files that their writer knows. With `move` such a file
                is not read; a copy is compared.

        Raises:
            UnreadableFile: A file is not what `known` says.
        """
        if not files:
            raise ValueError("files is empty: a checkpoint needs a file. Give {name: path}.")
        promised = {name: StoredFile(0, "") for name in files}
        to_json(StoredCheckpoint(check_step(step), promised, dict(details or {})))  # refuses early
        with self._changes(lease):
            draft = Draft(self.root)
        try:
            stored = {
                name: draft.add(name, Path(path), move=move, known=(known or {}).get(name))
                for name, path in files.items()
            }
            kept = self._commit(draft, StoredCheckpoint(step, stored, dict(details or {})), lease)
        except OSError as error:
            if error.errno is None or error.filename is not None:
                raise
            sentence = f"{error.strerror}; the checkpoint of step {step} was not stored"
            raise OSError(error.errno, sentence, str(self.root)) from error
        finally:
            draft.discard()
        if move:
            for path in files.values():
                if not draft.is_in_store(Path(path)):
                    Path(path).unlink(missing_ok=True)
        return kept

    def list(self) -> builtins.list[StoredCheckpoint]:
        """Return the checkpoints whose sidecar can be read and whose sizes hold, lowest step first.

        One that is left out is warned of.
        """
        found, left_out = read_all(self.root)
        for error in left_out:
            warnings.warn(f"Left out a checkpoint: {error}", stacklevel=2)
        return found

    def unknown(self) -> dict[int, str]:
        """Return, by step, why only another curitorch can read a checkpoint that is there."""
        return unknown(self.root)

    def fetch(self, checkpoint: StoredCheckpoint, name: str, folder: Path) -> Path:
        """Return the path of one file in the store itself, verified; do not write to it.

        One that is kept in parts (see `Saver`, `share_unchanged`) is put together in `folder`.
        """
        if name not in checkpoint.files:
            from .whole import materialise  # which needs this module

            materialise(self, checkpoint, name, folder / name)
            return folder / name
        one = replace(checkpoint, files={name: checkpoint.files[name]})
        check_files(self.root, one, read=True)
        return self.root / folder_name(checkpoint.step) / name

    def verify(self, checkpoint: StoredCheckpoint) -> None:
        """Read all files and compare their checksums."""
        check_files(self.root, checkpoint, read=True)

    def delete(self, step: int, *, lease: Lease | None = None) -> None:
        """Delete the checkpoint of `step`, sidecar first; nothing happens if there is none."""
        check_step(step)
        with self._changes(lease):
            gone = self._take_away(step)
        for path in gone:
            remove(path)

    @contextlib.contextmanager
    def drafting(self) -> Iterator[Path]:
        """Yield a folder on the store's own file system, which is swept if its maker dies."""
        with self._changes():
            draft = Draft(self.root)
        try:
            yield draft.folder
        finally:
            draft.discard()

    def __reduce__(self) -> tuple[type[Self], tuple[Path]]:
        return type(self), (self.root,)

    @contextlib.contextmanager
    def lease(self, holder: str) -> Iterator[Lease]:
        """Be the only writer for as long as the context lasts, or the process lives."""
        with self._leases.hold(holder) as lease:
            self._sweep()
            yield lease

    def close(self) -> None:
        """Nothing is under way between calls."""

    @contextlib.contextmanager
    def _changes(self, lease: Lease | None = None) -> Iterator[None]:
        """Be the only one who changes names in the root; held for moments, by `lease` if given."""
        lock = FileLock(self.root / "changes", thread_local=False, mode=0o666)
        with lock.acquire(poll_interval=_POLL):
            if lease is not None:
                self._leases.check(lease)
            yield

    def _commit(
        self, draft: Draft, ours: StoredCheckpoint, lease: Lease | None
    ) -> StoredCheckpoint:
        """Publish the draft, or find the same checkpoint there; one that is broken makes way."""
        step, sidecar = ours.step, to_json(ours)
        path = self.root / sidecar_name(step)
        kept, gone = from_json(sidecar, where="The sidecar"), []
        with self._changes(lease):
            there = self._valid(path, step)
            if there is None:
                gone = self._take_away(step)
                draft.publish(step, sidecar)
            elif is_same(there, ours, {name: draft.folder / name for name in ours.files}):
                kept = there
            else:
                raise CheckpointExists(
                    f"'{path}' is of another checkpoint of step {step}, which was not touched. "
                    "Delete it first, or use another root."
                )
        for each in gone:
            remove(each)
        return kept

    def _valid(self, path: Path, step: int) -> StoredCheckpoint | None:
        """Return the checkpoint that is there, if what its sidecar says holds."""
        try:
            found = read_sidecar(path, step)
            check_files(self.root, found, read=True)
        except OtherSchema as error:
            raise CheckpointExists(f"{error} It was not touched.") from error
        except (FileNotFoundError, UnreadableFile):
            return None
        return found

    def _take_away(self, step: int) -> builtins.list[Path]:
        """Rename what there is of `step` to what anybody may remove, sidecar first."""
        gone = []
        for name in (sidecar_name(step), folder_name(step)):
            if os.path.lexists(self.root / name):
                gone.append(trash(self.root, self.root / name))
                fsync_directory(self.root)
        return gone

    def _sweep(self) -> None:
        """Remove what dead writers left; what living ones are writing stays."""
        if may_have_leftovers(self.root):
            gone = []
            with self._changes():
                for path in leftovers(self.root):
                    with contextlib.suppress(FileNotFoundError):  # its writer discarded it
                        gone.append(trash(self.root, path))
            for path in gone:
                remove(path)
