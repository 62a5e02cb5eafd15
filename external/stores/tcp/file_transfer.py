"""Files on their way to and from the TCP store's service.

Plain sockets send them by `sendfile`: no byte passes through Python.
"""

import errno
import http.client
import io
import os
import socket
from collections.abc import Callable
from typing import Protocol

from .connection_pool import ConnectionPool, is_readable
from .exchange import AGAIN, Exchange, Failure, Reply, describe

PIECE = 1 << 20
SENT_AT_ONCE = 8 << 20
"""Between two of these the client looks whether the service has refused the rest."""


class CutShort(Exception):
    """A file was sent or received in part only: the connection was cut, or the service is busy."""


class Landing(Protocol):
    """Where a file goes that is received."""

    def buffer(self) -> memoryview:
        """Return memory for the next piece."""

    def take(self, count: int) -> None:
        """Take the first `count` bytes of it; raises OSError if they cannot be written."""


class FileTransfer:
    """Sends and receives files, once each; going on after a cut is the caller's.

    Args:
        pool: Of connections.
        token: Called for the token of each request; it may change.
        is_plain: Whether the connections are without TLS.
    """

    def __init__(self, pool: ConnectionPool, token: Callable[[], str], *, is_plain: bool) -> None:
        self._pool, self._token, self._is_plain = pool, token, is_plain

    def send(self, path: str, file: io.BufferedReader, *, offset: int, size: int) -> Reply:
        """Send a file from `offset` to its end.

        Raises:
            CutShort: Nobody knows how much of it arrived.
            OSError: The file itself cannot be read.
        """
        headers = {"Content-Length": str(size - offset)}
        if offset:
            last = f"{offset}-{size - 1}" if offset < size else "*"
            headers["Content-Range"] = f"bytes {last}/{size}"
        exchange = self._begin()
        try:
            token = self._token()
            exchange.send_head("PUT", path, token, headers)
            refused = False
            while offset < size and not refused:
                count = min(SENT_AT_ONCE, size - offset)
                self._send_piece(exchange.connection.sock, file, offset, count)
                offset += count
                refused = self._is_plain and is_readable(exchange.connection.sock)
            reply = exchange.answer()
        except _FileFailed as failed:
            exchange.close()
            raise failed.error from None
        except Failure as error:
            reply_or_none = exchange.last_words()
            if reply_or_none is None:
                raise CutShort(describe(error)) from error
            reply = reply_or_none
        return self._final(reply, token)

    def receive(self, path: str, *, offset: int, landing: Landing) -> Reply:
        """Receive a file from `offset` on.

        Raises:
            CutShort: `landing` has got a part.
            OSError: `landing` cannot write it.
        """
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        exchange = self._begin()
        try:
            token = self._token()
            exchange.send_head("GET", path, token, headers)
            response = exchange.connection.getresponse()
            if response.status not in (200, 206):
                return self._final(exchange.answer(response), token)
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
            exchange.close()
            raise failed.error from None
        except Failure as error:
            exchange.close()
            raise CutShort(describe(error)) from error
        exchange.finish(response)
        return Reply(response.status, {}, {})

    def _begin(self) -> Exchange:
        try:
            return Exchange(self._pool)
        except Failure as error:
            raise CutShort(describe(error)) from error

    def _final(self, reply: Reply, token: str) -> Reply:
        """Return an answer about a file, unless trying again may change it."""
        if reply.status in AGAIN or (reply.status == 401 and self._token() != token):
            raise CutShort(reply.sentence)
        return reply

    def _send_piece(
        self, sock: socket.socket, file: io.BufferedReader, offset: int, count: int
    ) -> None:
        if self._is_plain:
            try:
                sent = sock.sendfile(file, offset, count)
            except ValueError as error:  # no regular file any more
                raise _FileFailed(OSError(str(error))) from error
            except OSError as error:
                if error.errno != errno.EIO:  # which is of a disk, not of a network
                    raise
                raise _FileFailed(OSError(errno.EIO, error.strerror, file.name)) from error
            if sent < count:
                raise _FileFailed(OSError(f"'{file.name}' was cut off while it was sent."))
            return
        while count:
            try:
                piece = os.pread(file.fileno(), min(PIECE, count), offset)
            except OSError as error:
                failed = OSError(error.errno, error.strerror, file.name)
                raise _FileFailed(failed) from error
            if not piece:
                raise _FileFailed(OSError(f"'{file.name}' was cut off while it was sent."))
            sock.sendall(piece)
            offset, count = offset + len(piece), count - len(piece)


class _FileFailed(Exception):
    """The local file failed, not the network."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error
