"""Receiving a file: from the socket to the disk, hashed on the way, refused when it is too slow.

What aiohttp receives was copied three times before a handler has it, and changes threads on its
way to the disk. So a thread takes over a plain connection until the body is there; it costs what
`recv` and `write` cost. Such a connection is closed after the answer.
"""

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from ...checksum import WRITTEN
from ..tcp.landing import FileLanding
from ..tcp.wire import Kind
from .refusal import Refusal

BATCH = 1 << 20
COUNTED_SECONDS = 1.0


@dataclass(frozen=True)
class Pace:
    """How slow a client may be: `rate` bytes per second on average over every `seconds`."""

    rate: int = 1024
    seconds: float = 20.0

    def check(self, came: int, left: int) -> None:
        """Judge what came in `seconds`, `left` bytes before its end.

        Raises:
            Refusal: It is too little.
        """
        if came < min(left, self.rate * self.seconds):
            raise Refusal(
                Kind.TOO_SLOW,
                f"{came} bytes came in {self.seconds:g} s, expected {self.rate} per second at "
                "least. Go on from Upload-Offset when the network is better.",
            )


@dataclass(frozen=True)
class Received:
    """A whole file; `checksum` is None if none was wanted; after some, the connection must end."""

    bytes: int
    checksum: str | None
    must_close: bool


async def receive(
    request: web.Request,
    path: Path,
    *,
    offset: int,
    size: int,
    pace: Pace,
    kind: str | None = WRITTEN,
    count: Callable[[int], None] = lambda received: None,
) -> Received:
    """Write the rest of a file, durably.

    What arrived before an error stays, so that the client can go on from there.

    Args:
        request: Its body has `size - offset` bytes.
        path: Of the file, `offset` bytes long; made or emptied if `offset` is 0.
        offset: Where the body begins.
        size: Of the whole file.
        pace: Below it the client is refused.
        kind: Of the checksum; None for none.
        count: Called with numbers of bytes that came.

    Raises:
        Refusal: The client is too slow.
        ConnectionResetError: The client went away.
        OSError: Writing failed.
    """
    landing = FileLanding(path, offset=offset, kind=kind)
    await asyncio.to_thread(landing.__enter__)
    intake = _Intake(request, landing, size, pace)
    counted = offset
    receiving = asyncio.ensure_future(intake.run())
    try:
        while not receiving.done():
            await asyncio.wait([receiving], timeout=COUNTED_SECONDS)
            count(landing.bytes - counted)
            counted = landing.bytes
    finally:
        intake.stop()
        await _to_the_end(_ended(receiving, landing))
    receiving.result()
    await asyncio.to_thread(_fsync, path)
    checksum = None if kind is None else landing.stored().checksum
    return Received(size, checksum, must_close=intake.took_over)


class _Intake:
    """Brings a body to a landing."""

    def __init__(self, request: web.Request, landing: FileLanding, size: int, pace: Pace) -> None:
        self.took_over = False
        self._content, self._transport = request.content, request.transport
        self._landing, self._size, self._pace = landing, size, pace
        self._socket: socket.socket | None = None
        self._stopped = self._draining = False

    async def run(self) -> None:
        if self._transport is None:
            raise ConnectionResetError("The client went away.")
        if self._transport.get_extra_info("sslcontext") is not None:
            await self._stream()
            return
        already = self._content.read_nowait()
        if len(already) < self._left:
            self._take_over(self._transport)  # no await since: no byte came in between
        if already:
            await asyncio.to_thread(self._landing.take_all, already)
        if self._socket is not None:
            self._draining = True
            try:
                await _in_own_thread(self._drain, self._socket)
            finally:
                self._draining = False
            self._content.feed_eof()  # so that aiohttp waits for no more

    def stop(self) -> None:
        """End it soon, if it has not ended."""
        self._stopped = True
        if self._socket is not None:
            with suppress(OSError), self._socket:
                if self._draining:
                    self._socket.shutdown(socket.SHUT_RD)  # wakes the thread
        if self.took_over and self._left and self._transport is not None:
            self._transport.resume_reading()  # so that aiohttp can read the rest away

    @property
    def _left(self) -> int:
        return self._size - self._landing.bytes

    def _take_over(self, transport: asyncio.Transport) -> None:
        self.took_over = True
        transport.pause_reading()
        self._socket = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        self._socket.settimeout(min(1.0, self._pace.seconds))

    def _drain(self, connection: socket.socket) -> None:
        """Receive the rest; in a thread."""
        landing, size, pace = self._landing, self._size, self._pace
        began, before = time.monotonic(), landing.bytes
        while landing.bytes < size and not self._stopped:
            try:
                room = landing.buffer()[: size - landing.bytes]
                count = connection.recv_into(room)
            except TimeoutError:
                pass
            else:
                if not count:
                    raise ConnectionResetError(f"The client went away, {self._left} bytes early.")
                landing.take(count)
            if time.monotonic() - began >= pace.seconds:
                pace.check(landing.bytes - before, self._left)
                began, before = time.monotonic(), landing.bytes

    async def _stream(self) -> None:
        """Receive through aiohttp and TLS."""
        while self._left:
            batch, left = b"", self._left
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pace.seconds):
                    while len(batch) < min(left, BATCH):
                        chunk = await self._content.readany()
                        if not chunk:
                            raise ConnectionResetError("The client went away.")
                        batch += chunk
            if len(batch) < BATCH:
                self._pace.check(len(batch), left)
            await asyncio.to_thread(self._landing.take_all, batch)


async def _ended(receiving: "asyncio.Future[None]", landing: FileLanding) -> None:
    await asyncio.wait([receiving])
    if not receiving.cancelled():
        receiving.exception()  # asked for, or else asyncio logs it when nobody waits any more
    await asyncio.to_thread(landing.__exit__)


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Wait for `work` though this task is cancelled, perhaps again: nobody else may write then."""
    task, cancelled = asyncio.ensure_future(work), False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError
    task.result()


async def _in_own_thread(call: Callable[..., None], *arguments: object) -> None:
    """Call it in a thread of its own: it takes longer than the pool's threads should."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def work() -> None:
        error: BaseException | None = None
        try:
            call(*arguments)
        except BaseException as raised:
            error = raised
        with suppress(RuntimeError):  # the loop was closed
            loop.call_soon_threadsafe(end, error)

    def end(error: BaseException | None) -> None:
        if ended.done():
            return
        if error is None:
            ended.set_result(None)
        else:
            ended.set_exception(error)

    threading.Thread(target=work, name="receiving", daemon=True).start()
    await ended


def _fsync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
