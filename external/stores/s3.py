"""A store below a prefix of an S3 bucket, Amazon's or any server's that has conditional writes.

s3://bucket/job/step-00000120/00000003-9f8a1c…/model.ckpt   the files, each upload in its own folder
s3://bucket/job/step-00000120.json           the sidecar, which names the folder: the checkpoint
                                             exists while this does; created only where none is
s3://bucket/job/lease-00000003.json          who may write; the newest token

A folder's name begins with the token of its writer's lease, so that what a killed writer left can
be told from what a living one is writing: whoever takes the next lease deletes it, also the parts
of uploads that never ended. Where writers do without a lease, such leftovers go after a day.
"""

import builtins
import contextlib
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from ..atomic import checksum, whole_file
from ..manifest import check_file
from ..schema import UnreadableFile
from .s3_bucket import S3Bucket, S3Object
from .s3_errors import NoSuchObject, ObjectChanged
from .s3_lease import S3Lease
from .s3_sidecars import S3Sidecars, file_key
from .s3_sweep import new_upload, sweep
from .sidecar import OtherSchema, folder_name, from_json, sidecar_name, to_json
from .store import (
    CheckpointExists,
    Lease,
    Store,
    StoredCheckpoint,
    StoredFile,
    StoreError,
    check_name,
    check_step,
)

_SETTLE = 1.0  # seconds within which a write that another writer has begun arrives


class S3Store(Store):
    """Keeps checkpoints below `root`; nothing is sent before the first call of a method.

    Credentials are found as boto3 finds them: the environment, ~/.aws, the machine's role.

    Args:
        root: `s3://bucket/job/`; one job has one root.
        endpoint_url: Of a server that is not Amazon's, e.g. `https://minio.example:9000`.
        region: Of the bucket; boto3's own settings if None.
        profile: Whose credentials, of ~/.aws.
        lease_seconds: Without renewal a lease is free after that time; 1 to 3600.
        timeout: Seconds without an answer after which a request has failed.
        attempts: How often a request is tried in all, with growing pauses between.
        part_bytes: Larger files go up in parts of that size, at least 5 MiB, four at a time; up
            to a dozen parts are in memory.

    Raises:
        ValueError: `root` is not such an address, or a number is out of range.
        StoreError: There is no such profile.
        ModuleNotFoundError: boto3 is not installed.
    """

    def __init__(
        self,
        root: str,
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        profile: str | None = None,
        lease_seconds: float = 30.0,
        timeout: float = 60.0,
        attempts: int = 5,
        part_bytes: int = 8 << 20,
    ) -> None:
        self._bucket = S3Bucket(
            root,
            endpoint_url=endpoint_url,
            region=region,
            profile=profile,
            timeout=timeout,
            attempts=attempts,
            part_bytes=part_bytes,
        )
        self.root = self._bucket.address()
        self._leases = S3Lease(self._bucket, lease_seconds)
        self._sidecars = S3Sidecars(self._bucket)
        self._verified: dict[str, str] = {}  # the ETag of files that were read or sent whole

    def put(
        self,
        step: int,
        files: Mapping[str, Path],
        *,
        details: Mapping[str, Any] | None = None,
        lease: Lease | None = None,
    ) -> StoredCheckpoint:
        """Store `files` as the checkpoint of `step`, as `Store.put` says.

        If the server does not answer to the sidecar itself, nobody knows whether the checkpoint
        came to be; `list` tells, and putting the same one again does no harm.
        """
        if not files:
            raise ValueError("files is empty: a checkpoint needs a file. Give {name: path}.")
        promised = {name: StoredFile(0, "sha256:" + "0" * 64) for name in files}
        planned = StoredCheckpoint(check_step(step), promised, dict(details or {}))
        to_json(planned)  # refuses early
        self._check(lease)
        if (there := self._make_way(step)) is not None:
            paths = {name: Path(path) for name, path in files.items()}
            ours = {n: StoredFile(p.stat().st_size, checksum(p)) for n, p in paths.items()}
            return self._same(there, replace(planned, files=ours))
        checkpoint = replace(planned, files={}, upload=new_upload(lease))
        try:
            for name, path in files.items():
                key = file_key(checkpoint, name)
                checkpoint.files[name], self._verified[key] = self._bucket.upload(key, Path(path))
            self._check(lease)
        except BaseException:
            self._discard(checkpoint, files)
            raise
        return self._commit(checkpoint, alone=lease is not None)

    def list(self) -> builtins.list[StoredCheckpoint]:
        """Return the checkpoints whose sidecar can be read and whose sizes hold, lowest step first.

        One that is left out is warned of.
        """
        objects = self._bucket.list("step-").objects
        found = []
        for step, data in self._sidecars.among(objects).items():
            try:
                found.append(self._sidecars.checkpoint(step, data, objects))
            except NoSuchObject:
                continue  # deleted meanwhile
            except UnreadableFile as error:
                warnings.warn(f"Left out a checkpoint: {error}", stacklevel=2)
        return sorted(found, key=lambda checkpoint: checkpoint.step)

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
            self._compare(checkpoint, name, self._download(there, copy))
        self._verified[there.key] = there.etag
        return target

    def verify(self, checkpoint: StoredCheckpoint) -> None:
        """Read all files, without keeping them, and compare their checksums.

        One that this store object has sent or read whole before is not read again if its ETag is
        still the same.
        """
        for name in checkpoint.files:
            there = self._sidecars.look(checkpoint, name)
            if self._verified.get(there.key) != there.etag:
                self._compare(checkpoint, name, self._download(there, None))
                self._verified[there.key] = there.etag

    def delete(self, step: int, *, lease: Lease | None = None) -> None:
        """Delete the checkpoint of `step`, sidecar first; nothing happens if there is none."""
        folder = folder_name(step) + "/"
        self._check(lease)
        try:
            if upload := self._sidecars.read(step).upload:
                folder += upload + "/"
        except NoSuchObject:
            return
        except UnreadableFile:
            pass  # all there is of the step goes
        self._bucket.delete(sidecar_name(step))
        for entry in self._bucket.list(folder).objects:
            self._bucket.delete(entry.key)
            self._verified.pop(entry.key, None)

    @contextlib.contextmanager
    def lease(self, holder: str) -> Iterator[Lease]:
        """Be the only writer for as long as the context lasts, or the process lives.

        Waits for up to the `lease_seconds` of the holder there is, to see whether it lives.
        """
        with self._leases.hold(holder) as lease:
            sweep(self._bucket, self._sidecars, lease)
            yield lease

    def close(self) -> None:
        """Close the connections."""
        self._bucket.close()

    def _check(self, lease: Lease | None) -> None:
        if lease is not None:
            self._leases.check(lease)

    def _make_way(self, step: int) -> StoredCheckpoint | None:
        """Return the valid checkpoint of `step`, if there is one; a broken one is deleted."""
        try:
            there = self._sidecars.read(step)
            self.verify(there)
        except NoSuchObject:
            return None
        except OtherSchema as error:
            raise CheckpointExists(f"{error} It was not touched.") from error
        except UnreadableFile:
            self.delete(step)
            return None
        return there

    def _commit(self, checkpoint: StoredCheckpoint, *, alone: bool) -> StoredCheckpoint:
        """Create the sidecar; from then on the checkpoint exists.

        After an error of the server it may exist as well: its files have to stay.

        Args:
            checkpoint: Whose files are there.
            alone: No other writer is to be expected.
        """
        key, data = sidecar_name(checkpoint.step), to_json(checkpoint)
        try:
            self._bucket.create(key, data)
            if not alone:
                self._settle(checkpoint, data)
        except ObjectChanged:
            self._discard(checkpoint, checkpoint.files)
            return self._same(self._sidecars.read(checkpoint.step), checkpoint)
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

    def _same(self, there: StoredCheckpoint, ours: StoredCheckpoint) -> StoredCheckpoint:
        """Return `there` if it is the same as `ours`, or refuse."""
        if there != from_json(to_json(ours), where="The sidecar"):
            raise CheckpointExists(
                f"'{self._bucket.address(sidecar_name(ours.step))}' is of another checkpoint of "
                f"step {ours.step}, which was not touched. Delete it first, or use another root."
            )
        return there

    def _discard(self, checkpoint: StoredCheckpoint, names: Mapping[str, object]) -> None:
        """Delete the files of an upload that no sidecar names; the next lease sweeps the rest."""
        with contextlib.suppress(StoreError):
            for name in names:
                self._verified.pop(file_key(checkpoint, name), None)
                self._bucket.delete(file_key(checkpoint, name))

    def _download(self, there: S3Object, copy: IO[bytes] | None) -> StoredFile:
        try:
            return self._bucket.download(there.key, there.bytes, copy)
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
