"""The objects below one prefix of a bucket: what a store needs of S3, errors explained.

Keys are relative to the prefix everywhere. An upload larger than a part goes up in several parts
at a time; boto3 adds a CRC to each request, which the server compares.
"""

import builtins
import datetime
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ...checksum import WRITTEN
from ..store import StoredFile, StoreError, StoreUnreachable
from .client import S3Client
from .errors import NoSuchObject, ObjectBusy, ObjectChanged, cut_off, server_time
from .hashing_file import HashingFile
from .listed_object import Listing, S3Object

_MOST_PARTS = 9_000  # of 10,000 that S3 allows
_THREADS = 4  # transfers of parts at a time
_CONFLICTS = 5  # tries of a conditional write that meets another one under way


class S3Bucket(S3Client):
    """A prefix of a bucket. Safe to use from several threads.

    Every method raises StoreUnreachable if the server does not answer, and StoreError if it
    refuses. Its arguments are those of S3Client.
    """

    def list(self, start: str = "") -> Listing:
        """Return all objects whose key begins with `start`."""
        found: builtins.list[S3Object] = []
        now = None
        more: dict[str, str] = {}
        while True:
            page = self.ask(
                self.client.list_objects_v2,
                "listing",
                start,
                ("IsTruncated",),
                Prefix=self.prefix + start,
                **more,
            )
            now = now or server_time(page)  # of the first page: nothing listed is newer
            for entry in page.get("Contents", []):
                key = entry["Key"].removeprefix(self.prefix)
                found.append(S3Object(key, entry["Size"], entry["ETag"], entry["LastModified"]))
            if not page["IsTruncated"]:
                return Listing(found, now)
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def read(self, key: str) -> bytes:
        """Return a small object.

        Raises:
            NoSuchObject: There is none.
        """
        answer = self.ask(
            self.client.get_object,
            "reading",
            key,
            ("Body", "ContentLength", "ETag"),
            Key=self.prefix + key,
        )
        return bytes(answer["Body"])

    def head(self, key: str) -> S3Object:
        """Return what there is to know about an object without reading it.

        Raises:
            NoSuchObject: There is none.
        """
        try:
            answer = self.ask(
                self.client.head_object,
                "looking at",
                key,
                ("ContentLength", "ETag"),
                Key=self.prefix + key,
            )
        except StoreUnreachable:
            raise
        except StoreError:
            self.list(key)  # says why: the answer to a HEAD has no room for that
            raise
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

    def upload(self, key: str, path: Path, *, kind: str = WRITTEN) -> tuple[StoredFile, str]:
        """Upload a local file; returns what went up, whatever becomes of the file, and the ETag.

        Raises:
            OSError: The file cannot be read.
            StoreError: What the server has is not of that size.
        """
        with path.open("rb") as file:
            first = HashingFile(file, kind=kind)
            data = first.read(self.part_bytes)
            if len(data) < self.part_bytes:
                return first.result(), self._put(key, data)
            sent = self.again(lambda: self._upload_parts(key, file, kind))
        there = self.head(key)
        if there.bytes != sent.bytes:
            raise StoreError(
                f"'{self.address(key)}' has {there.bytes} bytes, {sent.bytes} were sent. "
                "The server lost some: store the checkpoint again."
            )
        return sent, there.etag

    def download(
        self, key: str, size: int, file: IO[bytes] | None = None, *, kind: str = WRITTEN
    ) -> StoredFile:
        """Read a whole object, into `file` if there is one; returns what came.

        Args:
            key: Of the object.
            size: Its size in bytes.
            file: Open for writing.
            kind: Of the checksum.

        Raises:
            NoSuchObject: There is none.
            ObjectChanged: It was replaced meanwhile.
            OSError: `file` cannot be written.
        """
        if size < self.part_bytes:
            sink = HashingFile(file, kind=kind)
            sink.write(self.read(key))
            return sink.result()
        return self.again(lambda: self._download_parts(key, size, file, kind))

    def delete(self, key: str) -> None:
        """Delete an object; nothing happens if there is none."""
        with self.explained("deleting", key):
            self.client.delete_object(Bucket=self.name, Key=self.prefix + key)

    def unfinished(self) -> Iterator[tuple[str, str, datetime.timedelta]]:
        """Yield the key, the id and the age of each multipart upload that is not finished."""
        with self.explained("listing the uploads to", ""):
            pages = self.client.get_paginator("list_multipart_uploads").paginate(
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
        with self.explained("giving up the upload of", key):
            self.client.abort_multipart_upload(
                Bucket=self.name, Key=self.prefix + key, UploadId=upload_id
            )

    def _put(self, key: str, data: builtins.bytes, **conditions: str) -> str:
        answer = self.ask(
            self.client.put_object,
            "storing",
            key,
            ("ETag",),
            Key=self.prefix + key,
            Body=data,
            **conditions,
        )
        return str(answer["ETag"])

    def _upload_parts(self, key: str, file: IO[builtins.bytes], kind: str) -> StoredFile:
        size = os.fstat(file.fileno()).st_size
        file.seek(0)
        source = HashingFile(file, kind=kind)
        with self.explained("storing", key):
            self.client.upload_fileobj(
                *(source, self.name, self.prefix + key),
                Config=_transfer(max(self.part_bytes, -(-size // _MOST_PARTS))),
            )
        return source.result()

    def _download_parts(
        self, key: str, size: int, file: IO[builtins.bytes] | None, kind: str
    ) -> StoredFile:
        if file is not None:
            file.seek(0)
            file.truncate()
        sink = HashingFile(file, kind=kind)
        with self.explained("reading", key):
            self.client.download_fileobj(
                *(self.name, self.prefix + key, sink), Config=_transfer(self.part_bytes)
            )
        if sink.size != size:
            raise cut_off(self.endpoint, f"reading '{self.address(key)}'")
        return sink.result()


def _transfer(part: int) -> Any:
    """Return how s3transfer goes about large objects."""
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(
        multipart_threshold=part,
        multipart_chunksize=part,
        max_concurrency=_THREADS,
        preferred_transfer_client="classic",
    )
