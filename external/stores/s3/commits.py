"""The moment in which a checkpoint on S3 comes to be: its sidecar is created where none is."""

import time
from collections.abc import Mapping
from pathlib import Path

from ..measuring import is_same
from ..sidecar import folder_name, from_json, sidecar_name, to_json
from ..store import CheckpointExists, StoredCheckpoint
from .bucket import S3Bucket
from .errors import ObjectChanged
from .files import S3Files
from .sidecars import S3Sidecars

_SETTLE = 1.0  # seconds within which a write that another writer has begun arrives


class S3Commits:
    """Commits the uploads of a store."""

    def __init__(self, bucket: S3Bucket, sidecars: S3Sidecars, files: S3Files) -> None:
        self._bucket, self._sidecars, self._files = bucket, sidecars, files

    def commit(
        self, checkpoint: StoredCheckpoint, files: Mapping[str, Path], *, alone: bool
    ) -> StoredCheckpoint:
        """Create the sidecar; from then on the checkpoint exists.

        After an error of the server it may exist as well: its files have to stay.

        Args:
            checkpoint: Whose files are there.
            files: The local ones.
            alone: No other writer is to be expected.
        """
        key, data = sidecar_name(checkpoint.step), to_json(checkpoint)
        try:
            self._bucket.create(key, data)
            if not alone:
                self._settle(checkpoint, data)
        except ObjectChanged:
            self._files.discard(checkpoint, files)
            return self.same(self._sidecars.read(checkpoint.step), checkpoint, files)
        return from_json(data, where="The sidecar")

    def _settle(self, checkpoint: StoredCheckpoint, data: bytes) -> None:
        """See whether another writer of the same step has overwritten the sidecar after all.

        For servers that look for an object when a write begins, as OpenStack Swift does, and not
        when it ends. Another writer whose files are not there yet will find the sidecar.

        Raises:
            ObjectChanged: It did.
        """
        start = folder_name(checkpoint.step) + "/"
        others = [
            entry
            for entry in self._bucket.list(start).objects
            if not entry.key.startswith(f"{start}{checkpoint.upload}/")
        ]
        if others:
            time.sleep(_SETTLE)
            if self._bucket.read(sidecar_name(checkpoint.step)) != data:
                raise ObjectChanged("Another checkpoint came to be in the same moment.")

    def same(
        self, there: StoredCheckpoint, ours: StoredCheckpoint, paths: Mapping[str, Path]
    ) -> StoredCheckpoint:
        """Return `there` if it is the same as `ours`, or refuse."""
        if not is_same(there, ours, paths):
            raise CheckpointExists(
                f"'{self._bucket.address(sidecar_name(ours.step))}' is of another checkpoint of "
                f"step {ours.step}, which was not touched. Delete it first, or use another root."
            )
        return there
