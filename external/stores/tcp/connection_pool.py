"""A pool of connections to one service: kept open between requests, each used by one thread."""

import http.client
import select
import socket
import ssl
import threading

from ..store import StoreUnreachable


class ConnectionPool:
    """Opens connections and keeps them.

    Args:
        endpoint: The service's host.
        port: Its port.
        tls: For https; None for http.
        timeout: Seconds that one operation on a socket may take.
    """

    def __init__(
        self, endpoint: str, port: int, *, tls: ssl.SSLContext | None, timeout: float
    ) -> None:
        self._endpoint, self._port = endpoint, port
        self._tls, self._timeout = tls, timeout
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()
        self._closed = False

    def take(self) -> http.client.HTTPConnection:
        """Return a connection that is open, to be given back or closed.

        Raises:
            OSError: The service cannot be reached, or the pool was closed.
            StoreUnreachable: Its certificate cannot be trusted, which trying again does not change.
        """
        with self._lock:
            if self._closed:
                raise ConnectionError("the store was closed")
            while self._idle:
                connection = self._idle.pop()
                if connection.sock is not None and not is_readable(connection.sock):
                    connection.sock.settimeout(self._timeout)
                    return connection
                connection.close()  # the service closed it meanwhile
        if self._tls is None:
            connection = http.client.HTTPConnection(
                self._endpoint, self._port, timeout=self._timeout
            )
        else:
            connection = http.client.HTTPSConnection(
                self._endpoint, self._port, timeout=self._timeout, context=self._tls
            )
        try:
            connection.connect()
        except ssl.SSLCertVerificationError as error:
            raise StoreUnreachable(
                f"The certificate of https://{self._endpoint}:{self._port} cannot be trusted "
                f"({error.verify_message.rstrip('.')}). Nothing was sent: give tls_ca=FILE, the "
                "PEM file of its authority or its own, and an endpoint that it names."
            ) from error
        return connection

    def put_back(
        self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse
    ) -> None:
        """Keep a connection for the next request, after all of `response` was read."""
        if response.will_close or connection.sock is None:
            connection.close()
            return
        response.close()
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close the connections; those in use when they are done."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


def is_readable(sock: socket.socket) -> bool:
    """Return whether there is something to read, if only the end."""
    poll = select.poll()  # select.select knows descriptors below 1024 only
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
