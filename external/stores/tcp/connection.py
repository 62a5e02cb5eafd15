"""Requests of the TCP store to its service: tried again until they are answered.

Only the standard library.
"""

import ssl
import time
from collections.abc import Callable, Mapping

from ..store import StoreUnreachable
from .connection_pool import ConnectionPool
from .exchange import AGAIN, Exchange, Failure, Reply, describe
from .file_transfer import FileTransfer
from .patience import Patience

_SLOWEST_CHECKSUM = 50e6  # bytes per second that a service reads and hashes at least


class Connection:
    """Sends requests; several threads may, each then has a connection of its own.

    Args:
        endpoint: The service's host.
        port: Its port.
        token: Called for the token of each request; it may change.
        tls: For https; None for http.
        patience: With the service.

    Attributes:
        files: Sends and receives files, without trying again.
    """

    def __init__(
        self,
        endpoint: str,
        port: int,
        *,
        token: Callable[[], str],
        tls: ssl.SSLContext | None,
        patience: Patience,
    ) -> None:
        self.endpoint, self.port = endpoint, port
        self.patience = patience
        self._token, self._tls = token, tls
        self._pool = ConnectionPool(endpoint, port, tls=tls, timeout=patience.timeout)
        self.files = FileTransfer(self._pool, token, is_plain=tls is None)

    @property
    def address(self) -> str:
        """What the service is called in messages."""
        return f"{'https' if self._tls else 'http'}://{self.endpoint}:{self.port}"

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        hashes: int = 0,
        tries: int | None = None,
    ) -> Reply:
        """Send a request until it is answered, whatever the answer is.

        Args:
            method: Of HTTP.
            path: From `wire`.
            body: JSON, or nothing.
            headers: Besides the token.
            hashes: Bytes that the service reads before it answers, which takes its time.
            tries: Instead of the patience's.

        Raises:
            StoreUnreachable: It was not, or only by "try again later".
        """
        extra = hashes / _SLOWEST_CHECKSUM
        tries = tries or self.patience.tries
        started, failures, what = time.monotonic(), 0, ""
        renewed = False
        while True:
            try:
                token = self._token()
                reply = self._once(method, path, token, body, headers or {}, extra)
                if reply.status not in AGAIN:
                    if reply.status != 401 or renewed or self._token() == token:
                        return reply
                    renewed = True  # the token was rotated meanwhile
                    continue
                what = reply.sentence
            except Failure as error:
                what = describe(error)
            failures += 1
            if failures >= tries:
                raise self.unreachable(what, failures, time.monotonic() - started)
            self.patience.pause(failures)

    def unreachable(self, what: str, tries: int, seconds: float) -> StoreUnreachable:
        """Return the error for a service that did not do its part."""
        return StoreUnreachable(
            f"{self.address} did not answer ({what}) in {tries} tries over {seconds:.1f} s. "
            "Nothing was changed: start the service, or try again later."
        )

    def close(self) -> None:
        """Close the connections; those in use when they are done."""
        self._pool.close()

    def _once(
        self,
        method: str,
        path: str,
        token: str,
        body: bytes,
        headers: Mapping[str, str],
        extra: float,
    ) -> Reply:
        exchange = Exchange(self._pool)
        exchange.connection.sock.settimeout(self.patience.timeout + extra)
        try:
            length = {"Content-Length": str(len(body))} if body or method != "GET" else {}
            exchange.send_head(method, path, token, {**headers, **length})
            exchange.connection.send(body)
            return exchange.answer()
        except Failure:
            reply = exchange.last_words()
            if reply is None:
                raise
            return reply
