"""Requests of the TCP store to its service: connections kept open, tried again, files streamed.

Only the standard library. Plain sockets send files by `sendfile`; no byte passes through Python.
"""

import http.client
import io
import json
import os
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from .connection_pool import ConnectionPool, is_readable
from .patience import Patience
from .store import StoreUnreachable

PIECE = 1 << 20
SENT_AT_ONCE = 8 << 20
"""Between two of these the client looks whether the service has refused the rest."""

_AGAIN = {408, 429, 502, 503, 504}
_Failure = (OSError, http.client.HTTPException)
_SLOWEST_CHECKSUM = 50e6  # bytes per second that a service reads and hashes at least


@dataclass(frozen=True)
class Reply:
    """What the service answered."""

    status: int
    headers: Mapping[str, str]
    record: dict[str, Any]

    @property
    def kind(self) -> str:
        """Why it refused; empty if it did not."""
        return str(self.record.get("kind", "")) if self.status >= 400 else ""

    @property
    def sentence(self) -> str:
        """What it said about that."""
        return str(self.record.get("error") or f"it answered {self.status}")


class CutShort(Exception):
    """A file was sent or received in part only: the connection was cut, or the service is busy."""


class Connection:
    """Sends requests; several threads may, each then has a connection of its own.

    Args:
        endpoint: The service's host.
        port: Its port.
        token: Called for the token of each request; it may change.
        tls: For https; None for http.
        patience: With the service.
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
                if reply.status not in _AGAIN:
                    if reply.status != 401 or renewed or self._token() == token:
                        return reply
                    renewed = True  # the token was rotated meanwhile
                    continue
                what = reply.sentence
            except _Failure as error:
                what = describe(error)
            failures += 1
            if failures >= tries:
                raise self.unreachable(what, failures, time.monotonic() - started)
            self.patience.pause(failures)

    def send_file(self, path: str, file: io.BufferedReader, *, offset: int, size: int) -> Reply:
        """Send a file from `offset` to its end, once.

        Raises:
            CutShort: Nobody knows how much of it arrived.
            OSError: The file itself cannot be read.
        """
        headers = {"Content-Length": str(size - offset)}
        if offset:
            last = f"{offset}-{size - 1}" if offset < size else "*"
            headers["Content-Range"] = f"bytes {last}/{size}"
        try:
            connection = self._pool.take()
        except _Failure as error:
            raise CutShort(describe(error)) from error
        try:
            token = self._token()
            self._head(connection, "PUT", path, token, headers)
            refused = False
            while offset < size and not refused:
                count = min(SENT_AT_ONCE, size - offset)
                self._send_piece(connection.sock, file, offset, count)
                offset += count
                refused = self._tls is None and is_readable(connection.sock)
            reply = self._answer(connection)
        except _FileFailed as failed:
            connection.close()
            raise failed.error from None
        except _Failure as error:
            reply_or_none = self._last_words(connection)
            if reply_or_none is None:
                raise CutShort(describe(error)) from error
            reply = reply_or_none
        return self._final(reply, token)

    def receive_file(self, path: str, *, offset: int, landing: "Landing") -> Reply:
        """Receive a file from `offset` on, once.

        Raises:
            CutShort: `landing` has got a part.
            OSError: `landing` cannot write it.
        """
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        token = ""
        try:
            connection = self._pool.take()
        except _Failure as error:
            raise CutShort(describe(error)) from error
        try:
            token = self._token()
            self._head(connection, "GET", path, token, headers)
            response = connection.getresponse()
            if response.status not in (200, 206):
                return self._final(self._read_reply(connection, response), token)
            if response.status != (206 if offset else 200):
                raise http.client.HTTPException(f"status {response.status} at offset {offset}")
            left = response.length or 0
            while left:
                count = response.readinto(landing.buffer()[:left])
                if not count:
                    raise http.client.IncompleteRead(b"", left)
                left -= count
                try:
                    landing.take(count)
                except OSError as error:
                    raise _FileFailed(error) from error
        except _FileFailed as failed:
            connection.close()
            raise failed.error from None
        except _Failure as error:
            connection.close()
            raise CutShort(describe(error)) from error
        self._pool.put_back(connection, response)
        return Reply(response.status, {}, {})

    def _final(self, reply: Reply, token: str) -> Reply:
        """Return an answer about a file, unless trying again may change it."""
        if reply.status in _AGAIN or (reply.status == 401 and self._token() != token):
            raise CutShort(reply.sentence)
        return reply

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
        connection = self._pool.take()
        connection.sock.settimeout(self.patience.timeout + extra)
        try:
            length = {"Content-Length": str(len(body))} if body or method != "GET" else {}
            self._head(connection, method, path, token, {**headers, **length})
            connection.send(body)
            return self._answer(connection)
        except _Failure:
            reply = self._last_words(connection)
            if reply is None:
                raise
            return reply

    def _head(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        token: str,
        headers: Mapping[str, str],
    ) -> None:
        connection.putrequest(method, path, skip_accept_encoding=True)
        connection.putheader("Authorization", f"Bearer {token}")
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()

    def _send_piece(
        self, sock: socket.socket, file: io.BufferedReader, offset: int, count: int
    ) -> None:
        if self._tls is None:
            try:
                sent = sock.sendfile(file, offset, count)
            except ValueError as error:  # no regular file any more
                raise _FileFailed(OSError(str(error))) from error
            if sent < count:
                raise _FileFailed(OSError(f"'{file.name}' was cut off while it was sent."))
            return
        while count:
            try:
                piece = os.pread(file.fileno(), min(PIECE, count), offset)
            except OSError as error:
                raise _FileFailed(error) from error
            if not piece:
                raise _FileFailed(OSError(f"'{file.name}' was cut off while it was sent."))
            sock.sendall(piece)
            offset, count = offset + len(piece), count - len(piece)

    def _answer(self, connection: http.client.HTTPConnection) -> Reply:
        return self._read_reply(connection, connection.getresponse())

    def _read_reply(
        self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse
    ) -> Reply:
        body = response.read()
        try:
            record = json.loads(body) if body else {}
        except ValueError:
            record = {"error": body[:200].decode("utf-8", "replace")}
        reply = Reply(
            response.status,
            {name.lower(): value for name, value in response.headers.items()},
            record if isinstance(record, dict) else {},
        )
        self._pool.put_back(connection, response)
        return reply

    def _last_words(self, connection: http.client.HTTPConnection) -> Reply | None:
        """Return the refusal that a service sent before it closed the connection."""
        try:
            if connection.sock is None or not is_readable(connection.sock):
                return None
            reply = self._answer(connection)
        except (*_Failure, ValueError):
            return None
        finally:
            connection.close()
        return reply if reply.status >= 400 else None


class Landing(Protocol):
    """Where a file goes that is received."""

    def buffer(self) -> memoryview:
        """Return memory for the next piece."""

    def take(self, count: int) -> None:
        """Take the first `count` bytes of it; raises OSError if they cannot be written."""


class _FileFailed(Exception):
    """The local file failed, not the network."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


def describe(error: BaseException) -> str:
    """Return what went wrong in a few words."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
