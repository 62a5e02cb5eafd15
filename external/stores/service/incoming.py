"""Receiving a file: from the socket to the disk, hashed on the way, refused when it is too slow.

Reading the socket is the event loop's; hashing and writing the batch before it, a thread's.
"""

import asyncio
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Protocol

from ..wire import Kind
from .refusal import Refusal

BATCH = 1 << 20
"""Bytes that are hashed and written at once: enough that threads cost little."""


class Content(Protocol):
    """What aiohttp's StreamReader does."""

    async def readany(self) -> bytes:
        """Return what has arrived; empty at the end."""


@dataclass(frozen=True)
class Pace:
    """How slow a client may be: `rate` bytes per second on average over every `seconds`."""

    rate: int = 1024
    seconds: float = 20.0


@dataclass(frozen=True)
class Received:
    """A whole file; `checksum` is None if none was wanted."""

    bytes: int
    checksum: str | None


async def receive(
    content: Content,
    path: Path,
    *,
    offset: int,
    size: int,
    pace: Pace,
    hashed: bool = True,
    count: Callable[[int], None] = lambda received: None,
) -> Received:
    """Write the rest of a file, durably.

    What arrived before an error stays, so that the client can go on from there.

    Args:
        content: The body; has `size - offset` bytes.
        path: Of the file, `offset` bytes long; made or emptied if `offset` is 0.
        offset: Where the body begins.
        size: Of the whole file.
        pace: Below it the client is refused.
        hashed: Whether to compute the checksum.
        count: Called with the number of each batch's bytes.

    Raises:
        Refusal: The client is too slow, or sends more than it said.
        ConnectionResetError: The client went away.
        OSError: Writing failed.
    """
    digest = hashlib.sha256() if hashed else None
    file = await asyncio.to_thread(_open_at, path, offset, digest)
    loop = asyncio.get_running_loop()
    writing: asyncio.Future[None] = loop.create_future()
    writing.set_result(None)
    batch: list[bytes] = []
    try:
        while offset < size:
            await _fill(batch, content, pace, size - offset)
            if not batch:
                raise ConnectionResetError(f"The body ended at {offset} of {size} bytes.")
            await writing
            writing = loop.run_in_executor(None, _append, file, digest, batch)
            offset += sum(map(len, batch))
            count(sum(map(len, batch)))
            batch = []
        await writing
        writing = loop.run_in_executor(None, os.fsync, file.fileno())
        await writing
    finally:
        await asyncio.wait([writing])  # the thread has the file in its hands
        if batch and not writing.cancelled() and writing.exception() is None:
            _append(file, None, batch)  # what came before the cut
        file.close()
    return Received(size, f"sha256:{digest.hexdigest()}" if digest is not None else None)


async def _fill(batch: list[bytes], content: Content, pace: Pace, left: int) -> None:
    """Add the next chunks to `batch`, about BATCH bytes, or fewer if they are slow to come."""
    got = 0
    try:
        async with asyncio.timeout(pace.seconds):
            while got < min(left, BATCH):
                chunk = await content.readany()
                if not chunk:
                    break
                batch.append(chunk)
                got += len(chunk)
    except TimeoutError:
        if got < min(left, pace.rate * pace.seconds):
            raise Refusal(
                Kind.TOO_SLOW,
                f"{got} bytes came in {pace.seconds:g} s, expected {pace.rate} per second at "
                "least. Go on from Upload-Offset when the network is better.",
            ) from None
    if got > left:
        batch.clear()
        raise Refusal(Kind.BAD_REQUEST, f"The body has more than the {left} bytes left to send.")


def _open_at(path: Path, offset: int, digest: "hashlib._Hash | None") -> FileIO:
    """Open `path` to append at `offset`, with what is there hashed."""
    if offset == 0:
        return path.open("wb", buffering=0)
    file = path.open("r+b", buffering=0)
    try:
        if digest is not None:
            while piece := file.read(BATCH):
                digest.update(piece)
        file.seek(offset)
    except BaseException:
        file.close()
        raise
    return file


def _append(file: FileIO, digest: "hashlib._Hash | None", chunks: list[bytes]) -> None:
    for chunk in chunks:
        if digest is not None:
            digest.update(chunk)
        rest = memoryview(chunk)
        while rest:
            rest = rest[file.write(rest) :]
