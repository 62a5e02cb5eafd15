"""The client of the TCP store; the service is `python -m curitorch.external.stores.server`.

    with TcpStore("digits", "node-a", 7070, token_file="/etc/curitorch/token") as store:
        store.put(120, {"model.ckpt": path})

What it needs is in the standard library. See `SpoolingStore` for putting without waiting.
"""

import builtins
import errno
import functools
import json
import ssl
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ...atomic import whole_file
from ...checksum import kind_of
from ...schema import UnreadableFile
from ..sidecar import from_json, to_json
from ..store import (
    CheckpointExists,
    Lease,
    LeaseLost,
    Store,
    StoredCheckpoint,
    StoredFile,
    StoreError,
    StoreUnreachable,
    check_name,
    check_step,
)
from . import wire
from .connection import Connection
from .download import receive
from .exchange import Reply
from .landing import FileLanding
from .patience import Patience
from .tcp_lease import TcpLease
from .token_source import token_source
from .upload import Refused, Upload, fencing
from .wire import Kind

AGAIN = 3
"""How often a checkpoint is sent whose checksum does not hold, or whose upload is lost."""


class TcpStore(Store):
    """Keeps the checkpoints of one job at a service.

    Args:
        job_id: What the service calls the run.
        endpoint: The service's host name or address.
        port: The service's port.
        token: The bearer token; or
        token_file: a file with the token on its first line, read again when it is refused.
        tls: Whether to speak TLS, trusting the system's certificate authorities; or
        tls_ca: a PEM file of the authority to trust instead, or of the certificate itself.
        timeout: Seconds that one operation on a socket may take.
        tries: How often a request is sent before the service counts as dead.

    Raises:
        ValueError: `job_id` is not a safe name, not one of `token` and `token_file` is given, or
            `tls_ca` is no certificate.
        OSError: `token_file` or `tls_ca` cannot be read, or is empty.
    """

    def __init__(
        self,
        job_id: str,
        endpoint: str,
        port: int,
        *,
        token: str | None = None,
        token_file: Path | None = None,
        tls: bool = False,
        tls_ca: Path | None = None,
        timeout: float = 30.0,
        tries: int = 6,
    ) -> None:
        self.job_id = check_name(job_id, what="Job")
        token_file = None if token_file is None else Path(token_file).absolute()
        tls_ca = None if tls_ca is None else Path(tls_ca).absolute()
        self._connection = Connection(
            endpoint,
            port,
            token=token_source(token, token_file),
            tls=_trusting(tls_ca) if tls or tls_ca else None,
            patience=Patience(timeout=timeout, tries=tries),
        )
        self._leases = TcpLease(self._connection, self.job_id, self._ask)
        self._opened_by = functools.partial(
            type(self),
            job_id,
            endpoint,
            port,
            token=token,
            token_file=token_file,
            tls=tls,
            tls_ca=tls_ca,
            timeout=timeout,
            tries=tries,
        )

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
        """Send `files` as the checkpoint of `step`, as `Store.put` says.

        A cut connection is gone on with where it was cut.

        Args:
            step: Optimizer steps done; at least 0.
            files: What the checkpoint consists of.
            details: Plain JSON data for the sidecar.
            lease: From `lease()`.
            move: Nothing can be taken over: `files` stay.
            known: The size and checksum of files that their writer knows: those are not hashed
                here, and the service compares what arrives.

        Raises:
            UnreadableFile: A file arrived, each time, as something else than `known` says.
        """
        if not files:
            raise ValueError("files is empty: a checkpoint needs a file. Give {name: path}.")
        promised = {name: StoredFile(0, "") for name in files}
        to_json(StoredCheckpoint(check_step(step), promised, dict(details or {})))  # refuses early
        with ExitStack() as stack:
            opened = {
                name: stack.enter_context(Path(path).open("rb")) for name, path in files.items()
            }
            for again in reversed(range(AGAIN)):
                upload = Upload(self._connection, self.job_id, step, opened, lease)
                try:
                    return upload.run(dict(details or {}), known)
                except Refused as refused:
                    if not again and known and refused.reply.kind == Kind.CHECKSUM:
                        raise UnreadableFile(
                            f"{refused.reply.sentence}: it is not what its writer recorded. Step "
                            f"{step} was not stored."
                        ) from None
                    if refused.reply.kind not in (Kind.NO_UPLOAD, Kind.CHECKSUM) or not again:
                        raise self._error(refused.reply, f"Step {step} was not stored") from None
        raise AssertionError("the last try returns or raises")

    def list(self) -> builtins.list[StoredCheckpoint]:
        """Return the checkpoints that exist, lowest step first; others are warned of."""
        reply = self._ask("GET", wire.checkpoints(self.job_id))
        for sentence in reply.record.get("unreadable", []):
            warnings.warn(f"Left out a checkpoint: {sentence}", stacklevel=2)
        where = f"A sidecar from {self._connection.address}"
        return [
            from_json(json.dumps(record).encode(), where=where)
            for record in reply.record["checkpoints"]
        ]

    def unknown(self) -> dict[int, str]:
        """Return, by step, why the service's curitorch cannot read a checkpoint that is there."""
        record = self._ask("GET", wire.checkpoints(self.job_id)).record
        return {int(step): str(why) for step, why in record.get("unknown", {}).items()}

    def fetch(self, checkpoint: StoredCheckpoint, name: str, folder: Path) -> Path:
        """Bring one file to `folder`, verified; a cut connection is gone on with."""
        said = checkpoint.files.get(name)
        if said is None:
            raise UnreadableFile(
                f"The checkpoint of step {checkpoint.step} has no file {name!r}; it has "
                f"{', '.join(map(repr, checkpoint.files))}."
            )
        target = Path(folder) / check_name(name, what="File")
        path = wire.checkpoints(self.job_id, checkpoint.step, name)
        with whole_file(target) as temporary:
            with FileLanding(temporary, kind=kind_of(said.checksum)) as landing:
                try:
                    refusal = receive(self._connection, path, landing, said.bytes)
                except StoreUnreachable:
                    self.verify(checkpoint)  # says so if it is the service's disk that fails
                    raise
                if refusal is not None:
                    raise self._error(refusal, "The file was not fetched")
            if (found := landing.stored()) != said:
                raise UnreadableFile(
                    f"{name!r} of step {checkpoint.step} came with {found.bytes} bytes and "
                    f"{found.checksum}; the sidecar says {said.bytes} and {said.checksum}: it was "
                    "torn or altered."
                )
        return target

    def verify(self, checkpoint: StoredCheckpoint) -> None:
        """Have the service compare the checksums of all files."""
        reply = self._ask(
            "POST",
            wire.checkpoints(self.job_id, checkpoint.step) + "/verify",
            body=to_json(checkpoint),
            hashes=checkpoint.bytes,
        )
        if reply.record.get("valid") is not True:
            raise UnreadableFile(str(reply.record.get("reason")))

    def delete(self, step: int, *, lease: Lease | None = None) -> None:
        """Delete the checkpoint of `step`, sidecar first; nothing happens if there is none."""
        path = wire.checkpoints(self.job_id, check_step(step))
        self._ask("DELETE", path, headers=fencing(lease))

    @contextmanager
    def lease(self, holder: str) -> Iterator[Lease]:
        """Be the only writer; a thread renews the lease three times in its time."""
        with self._leases.hold(holder) as lease:
            yield lease

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def _ask(self, method: str, path: str, **more: Any) -> Reply:
        reply = self._connection.request(method, path, **more)
        if reply.status >= 400:
            raise self._error(reply, "Nothing was changed")
        return reply

    def _error(self, reply: Reply, result: str) -> Exception:
        """Return what a refusal is called here."""
        sentence = f"{self._connection.address} refused: {reply.sentence.rstrip('.')}. {result}."
        if reply.kind in (Kind.DISK_FULL, Kind.QUOTA):
            code = errno.ENOSPC if reply.kind == Kind.DISK_FULL else errno.EDQUOT
            return OSError(code, sentence)
        kinds: dict[str, Callable[[str], Exception]] = {
            Kind.EXISTS: CheckpointExists,
            Kind.LEASE: LeaseLost,
            Kind.UNREADABLE: UnreadableFile,
        }
        return kinds.get(reply.kind, StoreError)(sentence)


def _trusting(authority: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=authority)
    except ssl.SSLError as error:
        raise ValueError(
            f"tls_ca '{authority}' holds no certificate that can be read ({error.reason}). Give a "
            "file in PEM, which begins with -----BEGIN CERTIFICATE-----."
        ) from error
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(authority)) from error
    if authority is not None:  # a service's own certificate will do, whoever has signed it
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
