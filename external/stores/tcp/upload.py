"""An upload: the files of one checkpoint on their way to the TCP store's service."""

import json
import os
import secrets
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BufferedReader
from typing import Any

from ...checksum import WRITTEN, kind_of, read_through
from ..sidecar import from_json, to_json
from ..store import Lease, StoredCheckpoint, StoredFile, StoreUnreachable
from . import wire
from .connection import Connection
from .exchange import Reply
from .file_transfer import CutShort
from .wire import FENCING_TOKEN, UPLOAD_ID, UPLOAD_OFFSET, Kind


class Refused(Exception):
    """The service refused; `reply` says why."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.sentence)
        self.reply = reply


class Upload:
    """Sends the files of a checkpoint, then the sidecar that makes it one.

    Args:
        connection: To the service.
        job: Whose checkpoint it is.
        step: Of the checkpoint.
        files: Open local files by their names in the checkpoint.
        lease: Of the writer.
    """

    def __init__(
        self,
        connection: Connection,
        job: str,
        step: int,
        files: Mapping[str, BufferedReader],
        lease: Lease | None,
    ) -> None:
        self._connection, self._job, self._step, self._files = connection, job, step, files
        self._fencing = fencing(lease)
        self._id = secrets.token_hex(16)

    def run(
        self, details: dict[str, Any], known: Mapping[str, StoredFile] | None = None
    ) -> StoredCheckpoint:
        """Send everything.

        Args:
            details: For the sidecar.
            known: Sizes and checksums that need not be computed here.

        Raises:
            Refused: Nothing came to be.
            StoreUnreachable: The same; or, if only the last answer was lost, it did come to be.
            OSError: A file cannot be read.
        """
        sizes = {name: os.fstat(file.fileno()).st_size for name, file in self._files.items()}
        path = wire.uploads(self._job, self._id)
        declared = json.dumps({"step": self._step, "files": sizes}).encode()
        self._ask("PUT", path, body=declared, headers=self._fencing)
        committed = False
        try:
            sent = {
                name: self.send(name, size, (known or {}).get(name)) for name, size in sizes.items()
            }
            checkpoint = StoredCheckpoint(self._step, sent, details)
            reply = self._ask(
                "PUT",
                wire.checkpoints(self._job, self._step),
                body=to_json(checkpoint),
                headers={UPLOAD_ID: self._id, "If-None-Match": "*", **self._fencing},
                hashes=checkpoint.bytes,
            )
            committed = True
        finally:
            if not committed:  # make its space free; the service does so too, but later
                with suppress(StoreUnreachable):
                    self._connection.request("DELETE", path, tries=1)
        return from_json(
            json.dumps(reply.record["sidecar"]).encode(), where="The service's sidecar"
        )

    def send(self, name: str, size: int, known: StoredFile | None = None) -> StoredFile:
        """Send one file, hashing it in another thread; returns what arrived.

        Raises:
            Refused: By the service; or it arrived with another checksum.
        """
        file = self._files[name]
        kind = WRITTEN if known is None else kind_of(known.checksum)
        path = wire.uploads(self._job, self._id, name) + f"?{wire.CHECKSUM}={kind}"
        with ThreadPoolExecutor(1) as threads:
            hashing = None if known else threads.submit(_measured, file.fileno(), size)
            reply = self._send_all(path, file, size)
            sent = hashing.result() if hashing else known
        assert sent is not None
        arrived = StoredFile(int(reply.record["bytes"]), str(reply.record["checksum"]))
        if arrived != sent:
            sentence = f"{name!r} changed on the way, or while it was sent"
            raise Refused(Reply(422, {}, {"kind": Kind.CHECKSUM.value, "error": sentence}))
        return sent

    def _send_all(self, path: str, file: BufferedReader, size: int) -> Reply:
        """Send a file, going on where the service's part of it ends each time it is cut."""
        patience = self._connection.patience
        offset, failures, started = 0, 0, time.monotonic()
        while True:
            try:
                reply = self._connection.files.send(path, file, offset=offset, size=size)
                if not reply.kind:
                    return reply
                if reply.kind != Kind.OFFSET:
                    raise Refused(reply)
                what, there = reply.sentence, int(reply.record["offset"])
            except CutShort as cut:
                patience.pause(failures + 1)
                asked = self._ask("HEAD", path)
                what, there = str(cut), int(asked.headers.get(UPLOAD_OFFSET.lower(), 0))
            failures = 1 if there > offset else failures + 1
            if failures >= patience.tries:
                seconds = time.monotonic() - started
                raise self._connection.unreachable(what, failures, seconds)
            offset = there

    def _ask(self, method: str, path: str, **more: Any) -> Reply:
        reply = self._connection.request(method, path, **more)
        if reply.status >= 400:
            if method == "HEAD":  # its answer has no body to say why
                record = {"kind": Kind.NO_UPLOAD.value, "error": "The upload is gone"}
                raise Refused(Reply(reply.status, reply.headers, record))
            raise Refused(reply)
        return reply


def fencing(lease: Lease | None) -> dict[str, str]:
    """Return the header by which the service knows the writer's lease."""
    return {} if lease is None else {FENCING_TOKEN: str(lease.token)}


def _measured(descriptor: int, size: int) -> StoredFile:
    found = read_through(descriptor, most=size)
    return StoredFile(found.bytes, found.text)
