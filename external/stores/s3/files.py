"""The files of checkpoints on S3: sent, fetched, verified; what is known is not read again."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from ...atomic import whole_file
from ...checksum import WRITTEN, kind_of
from ...manifest import check_file
from ...schema import UnreadableFile
from ..store import StoredCheckpoint, StoredFile, StoreError, check_name
from .bucket import S3Bucket
from .errors import NoSuchObject, ObjectChanged
from .listed_object import S3Object
from .sidecars import S3Sidecars, file_key


class S3Files:
    """Sends and fetches the files of a store's checkpoints."""

    def __init__(self, bucket: S3Bucket, sidecars: S3Sidecars) -> None:
        self._bucket, self._sidecars = bucket, sidecars
        self._verified: dict[str, str] = {}  # the ETag of files that were read or sent whole

    def send(
        self, checkpoint: StoredCheckpoint, name: str, path: Path, known: StoredFile | None
    ) -> StoredFile:
        """Upload a local file as `name` of `checkpoint`; returns what went up.

        Raises:
            UnreadableFile: That is not what `known` says.
            OSError: The file cannot be read.
        """
        key = file_key(checkpoint, name)
        kind = kind_of(known.checksum) if known else WRITTEN
        sent, self._verified[key] = self._bucket.upload(key, path, kind=kind)
        if sent != (known or sent):
            raise UnreadableFile(
                f"'{path}' is not what its writer recorded: torn or altered. Step "
                f"{checkpoint.step} was not stored."
            )
        return sent

    def fetch(self, checkpoint: StoredCheckpoint, name: str, folder: Path) -> Path:
        """Return the path of a verified copy in `folder`; a valid one that is there already stays.

        A copy appears whole, or not at all.
        """
        file = checkpoint.files.get(name)
        if file is None:
            raise UnreadableFile(
                f"The checkpoint of step {checkpoint.step} has no file {name!r}; it has "
                f"{', '.join(map(repr, checkpoint.files))}."
            )
        target = Path(folder) / check_name(name, what="File")
        with contextlib.suppress(UnreadableFile):
            check_file(target, size=file.bytes, digest=file.checksum, read=True)
            return target
        there = self._sidecars.look(checkpoint, name)
        with whole_file(target) as temporary, temporary.open("wb") as copy:
            self._compare(checkpoint, name, self._download(there, copy, file))
        self._verified[there.key] = there.etag
        return target

    def verify(self, checkpoint: StoredCheckpoint) -> None:
        """Read all files, without keeping them, and compare their checksums.

        One that this object has sent or read whole before is not read again if its ETag is still
        the same.
        """
        for name, file in checkpoint.files.items():
            there = self._sidecars.look(checkpoint, name)
            if self._verified.get(there.key) != there.etag:
                self._compare(checkpoint, name, self._download(there, None, file))
                self._verified[there.key] = there.etag

    def delete(self, folder: str) -> None:
        """Delete all below `folder`, which ends in '/'."""
        for entry in self._bucket.list(folder).objects:
            self._bucket.delete(entry.key)
            self._verified.pop(entry.key, None)

    def discard(self, checkpoint: StoredCheckpoint, names: Mapping[str, object]) -> None:
        """Delete the files of an upload that no sidecar names; the next lease sweeps the rest."""
        with contextlib.suppress(StoreError):
            for name in names:
                self._verified.pop(file_key(checkpoint, name), None)
                self._bucket.delete(file_key(checkpoint, name))

    def _download(self, there: S3Object, copy: IO[bytes] | None, said: StoredFile) -> StoredFile:
        try:
            return self._bucket.download(there.key, there.bytes, copy, kind=kind_of(said.checksum))
        except (NoSuchObject, ObjectChanged) as error:
            raise UnreadableFile(
                f"'{self._bucket.address(there.key)}' was changed while it was read."
            ) from error

    def _compare(self, checkpoint: StoredCheckpoint, name: str, found: StoredFile) -> None:
        if found != checkpoint.files[name]:
            raise UnreadableFile(
                f"'{self._bucket.address(file_key(checkpoint, name))}' does not have its recorded "
                "checksum: it was altered."
            )
