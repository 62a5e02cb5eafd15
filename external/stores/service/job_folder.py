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
from ...schema import UnreadableFile
from ..retention import Retention
from ..sidecar import sidecar_name, to_json
from ..store import CheckpointExists, StoredCheckpoint
from ..tcp.wire import Kind
from .job_checkpoints import JobCheckpoints
from .refusal import Refusal
from .uploads import IDLE_SECONDS, Uploads


class JobFolder(JobCheckpoints):
    """The checkpoints of one job; the methods that write are called one at a time.

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
        super().__init__(folder)
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

    def commit(
        self, upload: str, checkpoint: StoredCheckpoint
    ) -> tuple[StoredCheckpoint, bool, list[int]]:
        """Make an upload a checkpoint: all of its files first, the sidecar last.

        Returns:
            The checkpoint as it stands; whether it came to be now, not before; and the steps that
            retention deleted.

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
            return existing, False, []
        self.uploads.check(upload, checkpoint)
        try:
            kept = self.store().put(
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
        return kept, True, self._prune(checkpoint.step)

    def delete(self, step: int) -> bool:
        """Delete a checkpoint, its sidecar first; returns whether there was one."""
        if not (self.folder / sidecar_name(step)).exists():
            return False
        self.store().delete(step)
        return True

    def tidy(self) -> None:
        """Delete what a killed service left half-done; called before requests are answered."""
        remove_leftovers(self.folder)
        self.store()

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
            self.store().verify(checkpoint)
            return True
        except UnreadableFile:  # such a one makes way
            return False


def _exists(step: int) -> Refusal:
    return Refusal(
        Kind.EXISTS,
        f"There is another checkpoint of step {step}; it was not touched. Delete it first, or use "
        "another job id.",
    )
