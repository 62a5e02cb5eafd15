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
import datetime
import re
import secrets
import time
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..atomic import checksum, whole_file
from ..schema import UnreadableFile
from .s3_bucket import S3Bucket, S3Object
from .s3_errors import NoSuchObject, ObjectChanged
from .s3_lease import S3Lease
from .sidecar import OtherSchema, folder_name, from_json, sidecar_name, step_of, to_json
from .store import (
    CheckpointExists,
    Lease,
    Store,
    StoredCheckpoint,
    StoredFile,
    StoreError,
    StoreUnreachable,
    check_name,
    check_step,
)

_UPLOAD = re.compile(r"(step-[0-9]+)/(?:([0-9]{8,18})|free)-[0-9a-f]{16}/[^/]+")
_FORGOTTEN = datetime.timedelta(days=1)  # after which an upload without a lease is a dead one's
_SETTLE = 1.0  # seconds within which a write that another writer has begun arrives
_READERS = 8  # sidecars read at a time


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
        part_bytes: Larger files go up in parts of that size, at least 5 MiB; four times as much
            memory is used, and ten times for a slow server.

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
        self._sidecars: dict[tuple[str, str], bytes] = {}  # by key and ETag
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
        token = "free" if lease is None else f"{lease.token:08d}"
        upload = f"{token}-{secrets.token_hex(8)}"
        checkpoint = replace(planned, files={}, upload=upload)
        try:
            for name, path in files.items():
                key = _key(checkpoint, name)
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
        objects = {entry.key: entry for entry in self._bucket.list("step-").objects}
        found = []
        for step, data in self._read_sidecars(objects.values()):
            try:
                found.append(self._read(step, data, objects))
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
        if target.is_file() and (target.stat().st_size, checksum(target)) == (
            file.bytes,
            file.checksum,
        ):
            return target
        there = self._look(checkpoint, name)
        with whole_file(target) as temporary, temporary.open("wb") as copy:
            self._compare(checkpoint, name, self._download(there.key, copy))
        self._verified[there.key] = there.etag
        return target

    def verify(self, checkpoint: StoredCheckpoint) -> None:
        """Read all files, without keeping them, and compare their checksums.

        One that this store object has sent or read whole before is not read again if its ETag is
        still the same.
        """
        for name in checkpoint.files:
            there = self._look(checkpoint, name)
            if self._verified.get(there.key) != there.etag:
                self._compare(checkpoint, name, self._download(there.key, None))
                self._verified[there.key] = there.etag

    def delete(self, step: int, *, lease: Lease | None = None) -> None:
        """Delete the checkpoint of `step`, sidecar first; nothing happens if there is none."""
        key = sidecar_name(step)
        self._check(lease)
        try:
            data = self._bucket.read(key)
        except NoSuchObject:
            return
        folder = folder_name(step) + "/"
        with contextlib.suppress(UnreadableFile):  # then all there is of the step goes
            folder += from_json(data, where=key, step=step).upload
        self._bucket.delete(key)
        for entry in self._bucket.list(folder).objects:
            self._bucket.delete(entry.key)
            self._verified.pop(entry.key, None)

    @contextlib.contextmanager
    def lease(self, holder: str) -> Iterator[Lease]:
        """Be the only writer for as long as the context lasts, or the process lives.

        Waits for up to the `lease_seconds` of the holder there is, to see whether it lives.
        """
        with self._leases.hold(holder, then=self._sweep) as lease:
            yield lease

    def close(self) -> None:
        """Close the connections."""
        self._bucket.close()

    def _check(self, lease: Lease | None) -> None:
        if lease is not None:
            self._leases.check(lease)

    def _make_way(self, step: int) -> StoredCheckpoint | None:
        """Return the valid checkpoint of `step`, if there is one; a broken one is deleted."""
        key = sidecar_name(step)
        try:
            there = from_json(self._bucket.read(key), where=self._quoted(key), step=step)
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

        Args:
            checkpoint: Whose files are there.
            alone: No other writer is to be expected.
        """
        key, data = sidecar_name(checkpoint.step), to_json(checkpoint)
        try:
            self._bucket.create(key, data)
            if not alone:
                self._settle(checkpoint, data)
        except StoreUnreachable:
            raise  # it may exist after all: its files have to stay
        except ObjectChanged:
            self._discard(checkpoint, checkpoint.files)
            there = from_json(self._bucket.read(key), where=self._quoted(key), step=checkpoint.step)
            return self._same(there, checkpoint)
        except StoreError:
            self._discard(checkpoint, checkpoint.files)
            raise
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
                f"{self._quoted(sidecar_name(ours.step))} is of another checkpoint of step "
                f"{ours.step}, which was not touched. Delete it first, or use another root."
            )
        return there

    def _discard(self, checkpoint: StoredCheckpoint, names: Mapping[str, object]) -> None:
        """Delete the files of an upload that no sidecar names; the next lease sweeps the rest."""
        with contextlib.suppress(StoreError):
            for name in names:
                self._verified.pop(_key(checkpoint, name), None)
                self._bucket.delete(_key(checkpoint, name))

    def _read_sidecars(
        self, objects: "builtins.list[S3Object] | Any"
    ) -> Iterator[tuple[int, bytes | None]]:
        """Yield the step and the bytes of each sidecar among `objects`; None if it is gone."""
        sidecars = {}
        for entry in objects:
            step = step_of(entry.key)
            if step is not None and entry.key == sidecar_name(step):
                sidecars[step] = entry
        with ThreadPoolExecutor(_READERS) as readers:
            data = list(readers.map(self._read_sidecar, sidecars.values()))
        self._sidecars = {
            (entry.key, entry.etag): each
            for entry, each in zip(sidecars.values(), data, strict=True)
            if each is not None
        }
        yield from zip(sidecars, data, strict=True)

    def _read_sidecar(self, entry: S3Object) -> bytes | None:
        known = self._sidecars.get((entry.key, entry.etag))
        if known is not None:
            return known
        try:
            return self._bucket.read(entry.key)
        except NoSuchObject:
            return None

    def _read(
        self, step: int, data: bytes | None, objects: Mapping[str, S3Object]
    ) -> StoredCheckpoint:
        """Return a checkpoint whose files have their sizes among `objects`, or at a second look.

        Raises:
            NoSuchObject: It was deleted meanwhile.
            UnreadableFile: It is broken.
        """
        key = sidecar_name(step)
        if data is not None:
            checkpoint = from_json(data, where=self._quoted(key), step=step)
            entries = {name: objects.get(_key(checkpoint, name)) for name in checkpoint.files}
            if all(
                entry is not None and entry.bytes == checkpoint.files[name].bytes
                for name, entry in entries.items()
            ):
                return checkpoint
        checkpoint = from_json(self._bucket.read(key), where=self._quoted(key), step=step)
        for name in checkpoint.files:
            self._look(checkpoint, name)
        return checkpoint

    def _look(self, checkpoint: StoredCheckpoint, name: str) -> S3Object:
        """Return the object of a file.

        Raises:
            UnreadableFile: It is missing, or not of the recorded size.
        """
        key = _key(checkpoint, name)
        size = checkpoint.files[name].bytes
        try:
            there = self._bucket.head(key)
        except NoSuchObject:
            raise UnreadableFile(
                f"{self._quoted(key)} is missing, but the sidecar says that it has {size} bytes."
            ) from None
        if there.bytes != size:
            raise UnreadableFile(
                f"{self._quoted(key)} has {there.bytes} bytes, recorded are {size}: "
                "torn or altered."
            )
        return there

    def _download(self, key: str, copy: Any) -> StoredFile:
        try:
            return self._bucket.download(key, copy)
        except (NoSuchObject, ObjectChanged) as error:
            raise UnreadableFile(f"{self._quoted(key)} was changed while it was read.") from error

    def _compare(self, checkpoint: StoredCheckpoint, name: str, found: StoredFile) -> None:
        if found != checkpoint.files[name]:
            raise UnreadableFile(
                f"{self._quoted(_key(checkpoint, name))} does not have its recorded checksum: "
                "it was altered."
            )

    def _sweep(self, lease: Lease) -> None:
        """Delete what dead writers left: uploads of earlier leases that no sidecar names."""
        listing = self._bucket.list("step-")
        living = set()
        for step, data in self._read_sidecars(listing.objects):
            folder = folder_name(step) + "/"
            with contextlib.suppress(UnreadableFile):  # then whatever the step has stays
                folder += from_json(data or b"", where=folder, step=step).upload + "/"
            living.add(folder)
        for entry in listing.objects:
            step_folder, _, rest = entry.key.partition("/")
            upload_folder = f"{step_folder}/{rest.partition('/')[0]}/"
            if not living & {upload_folder, f"{step_folder}/"} and _is_dead(
                entry.key, listing.now - entry.modified, lease
            ):
                self._bucket.delete(entry.key)
        try:
            for key, number, age in self._bucket.unfinished():
                if _is_dead(key, age, lease):
                    with contextlib.suppress(NoSuchObject):
                        self._bucket.abort(key, number)
        except StoreUnreachable:
            raise
        except StoreError as error:
            warnings.warn(f"Unfinished uploads stay, which cost money: {error}", stacklevel=2)

    def _quoted(self, key: str) -> str:
        return f"'{self._bucket.address(key)}'"


def _key(checkpoint: StoredCheckpoint, name: str) -> str:
    """Return the key of a file of a checkpoint."""
    folder = folder_name(checkpoint.step)
    upload = f"{checkpoint.upload}/" if checkpoint.upload else ""
    return f"{folder}/{upload}{check_name(name, what='File')}"


def _is_dead(key: str, age: datetime.timedelta, lease: Lease) -> bool:
    """Return whether an upload to `key` cannot be one that a living writer is at."""
    match = _UPLOAD.fullmatch(key)
    if match is None:
        return False  # not ours
    return age > _FORGOTTEN if match[2] is None else int(match[2]) < lease.token
