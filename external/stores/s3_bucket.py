"""The objects below one prefix of a bucket: what a store needs of S3, errors explained.

Keys are relative to the prefix everywhere. An upload larger than a part goes up in several parts
at a time; boto3 adds a CRC to each request, which the server compares.
"""

import builtins
import datetime
import hashlib
import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from .s3_errors import NoSuchObject, ObjectBusy, ObjectChanged, explained, server_time
from .store import StoredFile, StoreError, StoreUnreachable

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{1,221}")  # old names, access points' aliases
_LONGEST_PREFIX = 600  # bytes, of the 1024 that a key may have
_MOST_PARTS = 9_000  # of 10,000 that S3 allows
_THREADS = 4  # transfers of parts at a time
_CONFLICTS = 5  # tries of a conditional write that meets another one under way

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class S3Object:
    """One object: `key` relative to the prefix, `modified` by the server's clock."""

    key: str
    bytes: int
    etag: str
    modified: datetime.datetime


@dataclass(frozen=True)
class Listing:
    """Objects in the order of their keys, and when the server listed them, by its own clock."""

    objects: list[S3Object]
    now: datetime.datetime


class S3Bucket:
    """A prefix of a bucket. Safe to use from several threads.

    Every method raises StoreUnreachable if the server does not answer, and StoreError if it
    refuses.

    Args:
        root: `s3://bucket/some/prefix/`.
        endpoint_url: Of a server that is not Amazon's.
        region: Of the bucket.
        profile: Whose credentials, of ~/.aws.
        timeout: Seconds without an answer after which a request has failed.
        attempts: How often a request is tried in all.
        part_bytes: Size of a part of a large object; S3 wants at least 5 MiB.

    Raises:
        ValueError: `root` is not such an address, or a number is out of range.
        StoreError: There is no such profile.
        ImportError: There is no boto3.
    """

    def __init__(
        self,
        root: str,
        *,
        endpoint_url: str | None,
        region: str | None,
        profile: str | None,
        timeout: float,
        attempts: int,
        part_bytes: int,
    ) -> None:
        self.name, self.prefix = _parse(root)
        if timeout <= 0 or attempts < 1 or part_bytes < 5 << 20:
            raise ValueError(
                f"timeout={timeout}, attempts={attempts}, part_bytes={part_bytes}: expected more "
                "than 0, at least 1, and at least 5 MiB (5242880)."
            )
        self._part_bytes = part_bytes
        self._attempts = attempts
        self._client = _client(
            endpoint_url=endpoint_url,
            region=region,
            profile=profile,
            timeout=timeout,
            attempts=attempts,
        )
        self.endpoint = str(self._client.meta.endpoint_url)

    def address(self, key: str = "") -> str:
        """Return how people write the address of an object."""
        return f"s3://{self.name}/{self.prefix}{key}"

    def list(self, start: str = "") -> Listing:
        """Return all objects whose key begins with `start`."""
        found, now = [], None
        with self._explained("listing", start):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.name, Prefix=self.prefix + start
            )
            for page in pages:
                now = now or server_time(page)  # of the first page: nothing listed is newer
                found += [
                    S3Object(
                        key=entry["Key"].removeprefix(self.prefix),
                        bytes=entry["Size"],
                        etag=entry["ETag"],
                        modified=entry["LastModified"],
                    )
                    for entry in page.get("Contents", [])
                ]
        if now is None:
            raise StoreError(f"Listing '{self.address(start)}' had no answer.")
        return Listing(found, now)

    def read(self, key: str) -> bytes:
        """Return a small object.

        Raises:
            NoSuchObject: There is none.
        """
        for left in reversed(range(self._attempts)):
            try:
                with self._explained("reading", key):
                    answer = self._client.get_object(Bucket=self.name, Key=self.prefix + key)
                    return bytes(answer["Body"].read())
            except StoreUnreachable:  # boto3 does not try again when a body is cut off
                if not left:
                    raise
        raise AssertionError("unreachable: the last round returns or raises")

    def head(self, key: str) -> S3Object:
        """Return what there is to know about an object without reading it.

        Raises:
            NoSuchObject: There is none.
        """
        with self._explained("looking at", key):
            answer = self._client.head_object(Bucket=self.name, Key=self.prefix + key)
        return S3Object(key, answer["ContentLength"], answer["ETag"], answer["LastModified"])

    def write(self, key: str, data: bytes) -> str:
        """Write a small object over what is there; returns its ETag."""
        return self._put(key, data)

    def create(self, key: str, data: bytes) -> str:
        """Write a small object where none is; returns its ETag.

        Whether one is there is the server's judgement, in the same moment: `If-None-Match: *`.

        Raises:
            ObjectChanged: One is there, and not with these bytes.
        """
        for left in reversed(range(_CONFLICTS)):
            try:
                return self._put(key, data, IfNoneMatch="*")
            except ObjectChanged:
                try:  # an earlier try of this request may have arrived, and its answer not
                    if self.read(key) == data:
                        return self.head(key).etag
                except NoSuchObject:  # deleted just now
                    if left:
                        continue
                raise
            except ObjectBusy:
                if not left:
                    raise
                time.sleep(0.1)
        raise AssertionError("unreachable: the last round returns or raises")

    def upload(self, key: str, path: Path) -> tuple[StoredFile, str]:
        """Upload a local file; returns what went up, whatever becomes of the file, and the ETag.

        Raises:
            OSError: The file cannot be read.
            StoreError: What the server has is not of that size.
        """
        from boto3.s3.transfer import TransferConfig

        with path.open("rb") as file:
            source = _Hashing(file)
            size = path.stat().st_size
            part = max(self._part_bytes, -(-size // _MOST_PARTS))
            with self._explained("storing", key):
                self._client.upload_fileobj(
                    source,
                    self.name,
                    self.prefix + key,
                    Config=TransferConfig(
                        multipart_threshold=part,
                        multipart_chunksize=part,
                        max_concurrency=_THREADS,
                        preferred_transfer_client="classic",
                    ),
                )
        there = self.head(key)
        if there.bytes != source.bytes:
            raise StoreError(
                f"'{self.address(key)}' has {there.bytes} bytes, {source.bytes} were sent. "
                "The server lost some: store the checkpoint again."
            )
        return source.result(), there.etag

    def download(self, key: str, file: IO[bytes] | None = None) -> StoredFile:
        """Read a whole object, into `file` if there is one; returns what came.

        Raises:
            NoSuchObject: There is none.
            ObjectChanged: It was replaced meanwhile.
            OSError: `file` cannot be written.
        """
        from boto3.s3.transfer import TransferConfig

        sink = _Hashing(file)
        size = self.head(key).bytes
        with self._explained("reading", key):
            self._client.download_fileobj(
                self.name,
                self.prefix + key,
                sink,
                Config=TransferConfig(
                    multipart_threshold=2 * self._part_bytes,
                    multipart_chunksize=self._part_bytes,
                    max_concurrency=_THREADS,
                    preferred_transfer_client="classic",
                ),
            )
        if sink.bytes != size:
            raise StoreUnreachable(
                f"Of '{self.address(key)}', {sink.bytes} of {size} bytes came. Try again."
            )
        return sink.result()

    def delete(self, key: str) -> None:
        """Delete an object; nothing happens if there is none."""
        with self._explained("deleting", key):
            self._client.delete_object(Bucket=self.name, Key=self.prefix + key)

    def unfinished(self) -> Iterator[tuple[str, str, datetime.timedelta]]:
        """Yield the key, the id and the age of each multipart upload that is not finished."""
        with self._explained("listing the uploads to", ""):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self.name, Prefix=self.prefix
            )
            for page in pages:
                now = server_time(page)
                for entry in page.get("Uploads", []):
                    key = entry["Key"].removeprefix(self.prefix)
                    yield key, entry["UploadId"], now - entry["Initiated"]

    def abort(self, key: str, upload_id: str) -> None:
        """Give up a multipart upload; its parts are deleted.

        Raises:
            NoSuchObject: It is finished or aborted already.
        """
        with self._explained("giving up the upload of", key):
            self._client.abort_multipart_upload(
                Bucket=self.name, Key=self.prefix + key, UploadId=upload_id
            )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _put(self, key: str, data: bytes, **conditions: str) -> str:
        with self._explained("storing", key):
            answer = self._client.put_object(
                Bucket=self.name, Key=self.prefix + key, Body=data, **conditions
            )
        return str(answer["ETag"])

    def _explained(self, verb: str, key: str) -> AbstractContextManager[None]:
        return explained(self.endpoint, self.name, f"{verb} '{self.address(key)}'")


class _Hashing:
    """A file that remembers the checksum of what went through; boto3 takes it for a stream."""

    def __init__(self, file: IO[bytes] | None) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.bytes = 0

    def read(self, size: int = -1) -> builtins.bytes:
        data = self._file.read(size) if self._file is not None else b""
        self._note(data)
        return data

    def write(self, data: builtins.bytes) -> int:
        self._note(data)
        return len(data) if self._file is None else self._file.write(data)

    def result(self) -> StoredFile:
        return StoredFile(self.bytes, "sha256:" + self._digest.hexdigest())

    def _note(self, data: builtins.bytes) -> None:
        self._digest.update(data)
        self.bytes += len(data)


def _parse(root: str) -> tuple[str, str]:
    """Return the bucket and the prefix of `s3://bucket/prefix/`; a prefix ends in '/'."""
    scheme, _, rest = root.partition("://")
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.rstrip("/")
    parts = prefix.split("/") if prefix else []
    if scheme != "s3" or not _BUCKET.fullmatch(bucket):
        raise ValueError(f"root {root!r} is not an address of S3. Write root=s3://BUCKET/JOB/.")
    if any(part in ("", ".", "..") or not part.isprintable() for part in parts):
        raise ValueError(
            f"root {root!r} has an empty part, '.', '..' or a control character in it. "
            "Write root=s3://BUCKET/JOB/."
        )
    if len(prefix.encode()) > _LONGEST_PREFIX:
        raise ValueError(
            f"root {root[:40]!r}… has a prefix of {len(prefix.encode())} bytes. "
            f"Use {_LONGEST_PREFIX} at most."
        )
    return bucket, "/".join(parts) + "/" if parts else ""


def _client(
    *,
    endpoint_url: str | None,
    region: str | None,
    profile: str | None,
    timeout: float,
    attempts: int,
) -> Any:
    """Return boto3's client; nothing is sent yet."""
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise ImportError('S3Store needs boto3: pip install "curitorch[s3]".') from error
    config = Config(
        connect_timeout=min(timeout, 10),
        read_timeout=timeout,
        max_pool_connections=4 * _THREADS,
        retries={"mode": "standard", "total_max_attempts": attempts},
    )
    try:
        session = boto3.Session(profile_name=profile, region_name=region)
        return session.client("s3", endpoint_url=endpoint_url, config=config)
    except (BotoCoreError, ValueError) as error:
        raise StoreError(f"S3 cannot be used with these settings: {error}") from error
