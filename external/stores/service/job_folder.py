"""A job's folder on the service's disk: its checkpoints as `LocalStore` lays them out, its uploads.

<root>/<job>/step-00000120/model.ckpt
<root>/<job>/step-00000120.json       the sidecar, written last
<root>/<job>/uploads/…                what is no checkpoint yet
<root>/<job>/lease.json
"""

import errno
import shutil
from collections.abc import Mapping
from pathlib import Path

from ...atomic import fsync_directory, remove_leftovers
from ...manifest import check_file
from ...schema import UnreadableFile
from ..local import LocalStore
from ..retention import Retention
from ..sidecar import folder_name, from_json, sidecar_name, step_of, to_json
from ..store import CheckpointExists, StoredCheckpoint, check_name
from ..wire import Kind
from .refusal import Refusal
from .uploads import IDLE_SECONDS, Uploads


class JobFolder:
    """The checkpoints of one job; its methods are called one at a time.

    Args:
        folder: Made when something is written.
        quota: Bytes that the job may use, uploads included; None for no limit.
        most_bytes: Of one file; None for no limit.
        retention: What stays after a commit; None for all.
    """

    def __init__(
        self,
        folder: Path,
        *,
        quota: int | None = None,
        most_bytes: int | None = None,
        retention: Retention | None = None,
    ) -> None:
        self.folder = folder
        self.quota = quota
        self.most_bytes = most_bytes
        self.retention = retention
        self.uploads = Uploads(folder)

    def create(self) -> None:
        """Make the folder, durably."""
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            fsync_directory(self.folder.parent)

    def begin(
        self, upload: str, step: int, sizes: Mapping[str, int], lease: int | None = None
    ) -> None:
        """Begin an upload, if there is room for it.

        Raises:
            Refusal: A file is too large, the quota is used up, the disk is full, or there is
                another checkpoint of that step.
        """
        for name, size in sizes.items():
            if self.most_bytes is not None and size > self.most_bytes:
                raise Refusal(
                    Kind.TOO_LARGE,
                    f"File {name!r} has {size} bytes, the service takes {self.most_bytes}. "
                    "Start it with a larger --max-bytes, or save less.",
                )
        existing = self._existing(step)
        if (
            existing is not None
            and {name: file.bytes for name, file in existing.files.items()} != sizes
            and self._is_valid(existing)
        ):
            raise _exists(step)
        self.create()
        self._check_room(upload, sum(sizes.values()))
        self.uploads.begin(upload, step, sizes, lease)

    def commit(self, upload: str, checkpoint: StoredCheckpoint) -> tuple[bool, list[int]]:
        """Make an upload a checkpoint: all of its files first, the sidecar last.

        Returns:
            Whether it came to be now, not before; and the steps that retention deleted.

        Raises:
            Refusal: A file is not as the sidecar says, or the step has another checkpoint.
        """
        existing = self._existing(checkpoint.step)
        if (
            existing is not None
            and to_json(existing) == to_json(checkpoint)
            and self._is_valid(existing)
        ):  # its answer was lost the first time, or the same is saved twice
            self.uploads.drop(upload)
            return False, []
        self.uploads.check(upload, checkpoint)
        try:
            self._store().put(
                checkpoint.step,
                {name: self.uploads.file(upload, name) for name in checkpoint.files},
                details=checkpoint.details,
                move=True,
                known=checkpoint.files,
            )
        except CheckpointExists as error:
            self.uploads.drop(upload)
            raise _exists(checkpoint.step) from error
        self.uploads.drop(upload)
        return True, self._prune(checkpoint.step)

    def read(self, step: int) -> StoredCheckpoint | None:
        """Return the checkpoint of `step`, None if there is none.

        Raises:
            UnreadableFile: Its sidecar is torn or altered.
        """
        try:
            data = (self.folder / sidecar_name(step)).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return from_json(data, where=f"'{self.folder.name}/{sidecar_name(step)}'", step=step)

    def checkpoints(self) -> tuple[list[StoredCheckpoint], list[str]]:
        """Return the checkpoints, lowest step first, and what is wrong with the others."""
        found, unreadable = [], []
        for step in self.steps():
            try:
                checkpoint = self.read(step)
                for name, file in checkpoint.files.items() if checkpoint is not None else ():
                    path = self.folder / folder_name(step) / name
                    check_file(path, size=file.bytes, digest=file.checksum, read=False)
            except UnreadableFile as error:
                unreadable.append(str(error))
                continue
            if checkpoint is not None:
                found.append(checkpoint)
        return found, unreadable

    def steps(self) -> list[int]:
        """Return the steps that have a sidecar, lowest first."""
        if not self.folder.is_dir():
            return []
        names = [path.name for path in self.folder.iterdir() if path.suffix == ".json"]
        return sorted(step for name in names if (step := step_of(name)) is not None)

    def file(self, step: int, name: str) -> Path:
        """Return the path of a file of a checkpoint.

        Raises:
            Refusal: There is no such checkpoint, or it has no such file.
        """
        try:
            checkpoint = self.read(step)
        except UnreadableFile:
            checkpoint = None
        path = self.folder / folder_name(step) / check_name(name, what="File")
        if checkpoint is None or name not in checkpoint.files or not _is_own(path):
            raise Refusal(
                Kind.UNREADABLE,
                f"Step {step} of {self.folder.name!r} has no file {name!r}: it was deleted, or "
                "never there. List the checkpoints again.",
            )
        return path

    def verify(self, checkpoint: StoredCheckpoint) -> None:
        """Read all files of a checkpoint and compare their checksums.

        Raises:
            UnreadableFile: One is missing, torn or altered.
        """
        if not self.folder.is_dir():
            raise UnreadableFile(f"Job {self.folder.name!r} has no checkpoints.")
        self._store().verify(checkpoint)

    def delete(self, step: int) -> bool:
        """Delete a checkpoint, its sidecar first; returns whether there was one."""
        if not (self.folder / sidecar_name(step)).exists():
            return False
        self._store().delete(step)
        return True

    def tidy(self) -> None:
        """Delete what a killed service left half-done; called before requests are answered."""
        remove_leftovers(self.folder)
        self._store()

    def stored_bytes(self) -> int:
        """Return the size of all checkpoints."""
        return sum(checkpoint.bytes for checkpoint in self.checkpoints()[0])

    def _check_room(self, upload: str, size: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if size > free:
            raise Refusal(
                Kind.DISK_FULL,
                f"The service's disk has {free} bytes left, the checkpoint has {size}. Delete old "
                "checkpoints or keep fewer.",
                errno=errno.ENOSPC,
            )
        if self.quota is None:
            return
        stored = self.stored_bytes()
        if stored + self.uploads.reserved(but=upload) + size > self.quota:
            self.uploads.drop_idle(IDLE_SECONDS)
        used = stored + self.uploads.reserved(but=upload)
        if used + size > self.quota:
            raise Refusal(
                Kind.QUOTA,
                f"Job {self.folder.name!r} uses {used} of {self.quota} bytes, the checkpoint has "
                f"{size} more. Delete old checkpoints or keep fewer.",
                errno=errno.EDQUOT,
            )

    def _prune(self, newest: int) -> list[int]:
        if self.retention is None:
            return []
        existing = self.checkpoints()[0]
        kept = self.retention.keep(existing)
        gone = [c.step for c in existing if c.step not in kept and c.step < newest]
        for step in gone:
            self.delete(step)
        return gone

    def _existing(self, step: int) -> StoredCheckpoint | None:
        return next((found for found in self.checkpoints()[0] if found.step == step), None)

    def _is_valid(self, checkpoint: StoredCheckpoint) -> bool:
        try:
            self._store().verify(checkpoint)
        except UnreadableFile:  # such a one makes way
            return False
        return True

    def _store(self) -> LocalStore:
        return LocalStore(self.folder)  # sweeps what dead writers left


def _exists(step: int) -> Refusal:
    return Refusal(
        Kind.EXISTS,
        f"There is another checkpoint of step {step}; it was not touched. Delete it first, or use "
        "another job id.",
    )


def _is_own(path: Path) -> bool:
    """Return whether `path` is a file in its folder, not a link to elsewhere."""
    return path.is_file() and not path.is_symlink() and not path.parent.is_symlink()
