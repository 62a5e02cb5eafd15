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
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...schema import UnreadableFile
from ..measuring import measured
from ..sidecar import OtherSchema, folder_name, sidecar_name, to_json
from ..store import CheckpointExists, Lease, Store, StoredCheckpoint, StoredFile, check_step
from .bucket import S3Bucket
from .commits import S3Commits
from .errors import NoSuchObject
from .files import S3Files
from .s3_lease import S3Lease
from .sidecars import S3Sidecars
from .sweep import new_upload, sweep


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
        settings: dict[str, Any] = {
            "endpoint_url": endpoint_url,
            "region": region,
            "profile": profile,
            "timeout": timeout,
            "attempts": attempts,
            "part_bytes": part_bytes,
        }
        self._bucket = S3Bucket(root, **settings)
        self._opened_by = functools.partial(
            type(self), root, lease_seconds=lease_seconds, **settings
        )
        self.root = self._bucket.address()
        self._leases = S3Lease(self._bucket, lease_seconds)
        self._sidecars = S3Sidecars(self._bucket)
        self._files = S3Files(self._bucket, self._sidecars)
        self._commits = S3Commits(self._bucket, self._sidecars, self._files)

    def __reduce__(self) -> tuple[Callable[[], Store], tuple[()]]:
        return self._opened_by, ()

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

        Args:
            step: Optimizer steps done; at least 0.
            files: What the checkpoint consists of.
            details: Plain JSON data for the sidecar.
            lease: From `lease()`.
            move: Nothing can be taken over: `files` stay.
            known: The size and checksum of files that their writer knows; compared with what goes
                up.

        Raises:
            StoreUnreachable: No checkpoint came to be; but if it was the sidecar itself to which
                the server did not answer, nobody knows: `list` tells, and putting the same one
                again does no harm.
            UnreadableFile: A file is not what `known` says.
        """
        if not files:
            raise ValueError("files is empty: a checkpoint needs a file. Give {name: path}.")
        promised = {name: StoredFile(0, "") for name in files}
        planned = StoredCheckpoint(check_step(step), promised, dict(details or {}))
        to_json(planned)  # refuses early
        self._check(lease)
        if (there := self._make_way(step)) is not None:
            ours = {
                name: (known or {}).get(name) or measured(Path(path))
                for name, path in files.items()
            }
            return self._commits.same(there, replace(planned, files=ours), files)
        checkpoint = replace(planned, files={}, upload=new_upload(lease))
        try:
            for name, path in files.items():
                said = (known or {}).get(name)
                checkpoint.files[name] = self._files.send(checkpoint, name, Path(path), said)
            self._check(lease)
        except BaseException:
            self._files.discard(checkpoint, files)
            raise
        return self._commits.commit(checkpoint, files, alone=lease is not None)

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

    def unknown(self) -> dict[int, str]:
        """Return, by step, why only another curitorch can read a checkpoint that is there."""
        found = {}
        for step, data in self._sidecars.among(self._bucket.list("step-").objects).items():
            try:
                self._sidecars.parse(step, data)
            except OtherSchema as error:
                found[step] = str(error)
            except UnreadableFile:
                continue  # none at all
        return found

    def fetch(self, checkpoint: StoredCheckpoint, name: str, folder: Path) -> Path:
        """Return the path of a verified copy in `folder`; a valid one that is there already stays.

        A copy appears whole, or not at all.
        """
        return self._files.fetch(checkpoint, name, folder)

    def verify(self, checkpoint: StoredCheckpoint) -> None:
        """Read all files, without keeping them, and compare their checksums.

        One that this store object has sent or read whole before is not read again if its ETag is
        still the same.
        """
        self._files.verify(checkpoint)

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
        self._files.delete(folder)

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
