"""The lease of a TCP store: the service grants it, a thread of its holder renews it."""

import json
import math
import secrets
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ..store import Lease, StoreUnreachable, check_name
from . import wire
from .connection import Connection
from .exchange import Reply
from .upload import fencing
from .wire import Kind

_AGAIN = 0.5  # seconds between two questions whether another's lease has ended


class TcpLease:
    """Takes, renews and gives back the leases of a job.

    Args:
        connection: To the service.
        job: Whose leases they are.
        ask: Sends a request that must not be refused.
    """

    def __init__(self, connection: Connection, job: str, ask: Callable[..., Reply]) -> None:
        self._connection, self._job, self._ask = connection, job, ask

    @contextmanager
    def hold(self, holder: str) -> Iterator[Lease]:
        """Be the only writer; a thread renews the lease three times in its time.

        Where another holds it, waits until it ends, or until its holder renews it: it lives.
        """
        check_name(holder, what="Holder")
        path = wire.lease(self._job)
        body = json.dumps({"holder": holder, "nonce": secrets.token_hex(16)}).encode()
        self._outwait(path, body)
        record = self._ask("POST", path, body=body).record
        lease = Lease(holder, int(record["token"]))
        ended = threading.Event()
        renewing = threading.Thread(
            target=self._renew, args=(lease, float(record["seconds"]), ended), daemon=True
        )
        renewing.start()
        try:
            yield lease
        finally:
            ended.set()
            renewing.join()
            with suppress(StoreUnreachable):  # it runs out by itself
                self._connection.request("DELETE", path, headers=fencing(lease), tries=1)

    def _outwait(self, path: str, body: bytes) -> None:
        """Ask for the lease again and again, as long as its holder may be dead."""
        least = math.inf
        while True:
            reply = self._connection.request("POST", path, body=body)
            left = float(reply.record.get("seconds_left", 0.0))
            if reply.kind != Kind.LEASE or left > least:  # renewed meanwhile
                return
            if least == math.inf:
                warnings.warn(
                    f"Waiting to see whether the holder lives: {reply.sentence}", stacklevel=4
                )
            least = left
            time.sleep(min(_AGAIN, left))

    def _renew(self, lease: Lease, seconds: float, ended: threading.Event) -> None:
        path = wire.lease(self._job)
        while not ended.wait(seconds / 3):
            with suppress(StoreUnreachable):  # perhaps it answers the next time
                reply = self._connection.request("PUT", path, headers=fencing(lease), tries=1)
                if reply.kind == Kind.LEASE:
                    warnings.warn(
                        f"Lost the lease of {self._job!r}: {reply.sentence}", stacklevel=1
                    )
                    return
