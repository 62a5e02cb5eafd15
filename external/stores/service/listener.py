"""Listening: a socket, at most so many connections on it, and an end that lets uploads finish."""

import asyncio
import contextlib
import json
import logging
import ssl
from collections.abc import Callable

from aiohttp import web

from ..tcp.wire import Kind
from .application import Service

LINGER_SECONDS = 2.0
"""How long the rest of a refused body is read, so that the client sees the answer."""

READ_BUFFER = 1 << 20
HANDSHAKE_SECONDS = 10.0

_log = logging.getLogger("curitorch.stores.service")


class Listener:
    """Serves `service` on one address.

    Args:
        service: What answers.
        host: Name or address to bind.
        port: 0 for any that is free.
        tls: For https; None for http.
        most_connections: More are answered 503 and closed.
        idle_seconds: After how long a connection is closed on which no whole request came, be it
            that nothing came or that its header drips.
    """

    def __init__(
        self,
        service: Service,
        *,
        host: str,
        port: int,
        tls: ssl.SSLContext | None = None,
        most_connections: int = 256,
        idle_seconds: float = 15.0,
    ) -> None:
        self.service = service
        self._host, self._port, self._tls = host, port, tls
        self._most = most_connections
        self._runner = web.AppRunner(service.application(), access_log=None, shutdown_timeout=0.1)
        self._idle_seconds = idle_seconds
        self._server: asyncio.Server | None = None
        self._coming: dict[_Handler, float] = {}

    async def start(self) -> str:
        """Listen; returns the address, e.g. `http://127.0.0.1:41234`.

        Raises:
            OSError: The address cannot be bound.
        """
        await self._runner.setup()
        self.service.connections = lambda: len(self._open())
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._protocol,
            self._host,
            self._port,
            ssl=self._tls,
            backlog=512,
            ssl_handshake_timeout=None if self._tls is None else HANDSHAKE_SECONDS,
        )
        host, port = self._server.sockets[0].getsockname()[:2]
        scheme = "https" if self._tls is not None else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    async def stop(self, seconds: float) -> bool:
        """Begin nothing new, let what is under way finish, end the rest.

        Until then new connections are taken: an upload under way may need one for its commit.

        Returns:
            Whether everything had finished after `seconds`.
        """
        assert self._server is not None
        finished = True
        try:
            async with asyncio.timeout(seconds):
                await self.service.drained()
        except TimeoutError:
            finished = False
            _log.warning("Uploads were still under way after %g s; clients can go on.", seconds)
        finally:
            self._server.close()
        with contextlib.suppress(asyncio.CancelledError):
            await self._runner.cleanup()
        return finished

    def _open(self) -> list[web.RequestHandler]:
        return self._runner.server.connections if self._runner.server is not None else []

    def _protocol(self) -> asyncio.Protocol:
        loop = asyncio.get_running_loop()
        # Several are accepted before the first of them is open; with TLS, some never are.
        coming = {each: until for each, until in self._coming.items() if until > loop.time()}
        self._coming = coming
        if len(self._open()) + len(coming) >= self._most:
            self.service.metrics.add("turned_away_total")
            return _TurnedAway(self._most)
        assert self._runner.server is not None
        handler = _Handler(
            self._runner.server,
            loop=loop,
            keepalive_timeout=self._idle_seconds,
            lingering_time=LINGER_SECONDS,
            auto_decompress=False,
            access_log=None,  # type: ignore[arg-type]  # which aiohttp's own runner passes, too
            read_bufsize=READ_BUFFER,
        )
        handler.opened = lambda: self._coming.pop(handler, None)
        self._coming[handler] = loop.time() + HANDSHAKE_SECONDS
        return handler


class _Handler(web.RequestHandler):
    """aiohttp's, which answers what is not HTTP at all in our way."""

    opened: Callable[[], object]
    """Called when the connection is open."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say so, and begin."""
        super().connection_made(transport)
        self.opened()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the answer."""
        sentence = "That is not HTTP/1.1 that can be understood. Speak HTTP, or TLS where it is on."
        if isinstance(exc, ConnectionError):  # nobody is there to get the answer
            _log.info("%r ended early: %s", request, exc)
        elif status >= 500:
            _log.error("%r failed", request, exc_info=exc)
        if status >= 500:
            sentence = "The service failed. Its log says more."
        kind = Kind.FAILED if status >= 500 else Kind.BAD_REQUEST
        response = web.json_response({"error": sentence, "kind": kind.value}, status=status)
        response.force_close()
        return response


class _TurnedAway(asyncio.Protocol):
    """Answers whatever may be asked with 503, once."""

    def __init__(self, most: int) -> None:
        sentence = f"The service has {most} connections, its most. Try again in a while."
        body = json.dumps({"error": sentence, "kind": Kind.BUSY.value}).encode()
        self._answer = (
            b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n"
            b"Content-Type: application/json; charset=utf-8\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._answer)
        transport.close()
