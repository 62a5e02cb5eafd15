"""What a request asks: its names, numbers and body, each checked, or a refusal that says why."""

import asyncio
import json
import re
from typing import Any

from aiohttp import web

from ...checksum import Checksum, UnknownChecksum
from ..store import check_name
from ..tcp.wire import CHECKSUM, FENCING_TOKEN, Kind
from .refusal import Refusal

_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18})", re.ASCII)


def job_name(request: web.Request) -> str:
    """Return the job of a request's address."""
    return checked(request.match_info["job"], "Job")


def checked(name: object, what: str) -> str:
    """Return `name` if it is safe."""
    try:
        return check_name(name if isinstance(name, str) else "", what=what)
    except ValueError as error:
        raise Refusal(Kind.BAD_REQUEST, str(error)) from error


def step(request: web.Request) -> int:
    """Return the step of a request's address."""
    word = request.match_info["step"]
    if not re.fullmatch(r"[0-9]{1,18}", word):
        sentence = f"{word[:80]!r} is not a step. Use an integer of at least 0."
        raise Refusal(Kind.BAD_REQUEST, sentence)
    return int(word)


def fencing_token(request: web.Request) -> int | None:
    """Return the token of the writer's lease, None if it has none."""
    word = request.headers.get(FENCING_TOKEN)
    if word is None:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", word):
        raise Refusal(Kind.BAD_REQUEST, f"{FENCING_TOKEN} {word[:80]!r} is not a number.")
    return int(word)


def needed_token(request: web.Request) -> int:
    """Return the token of the lease that a request is about."""
    token = fencing_token(request)
    if token is None:
        raise Refusal(Kind.BAD_REQUEST, f"Which lease? Send its {FENCING_TOKEN}.")
    return token


def checksum_kind(request: web.Request) -> str | None:
    """Return the kind of checksum that is wanted of a body, None for none."""
    kind = request.query.get(CHECKSUM, "sha256")  # older clients compare that and do not say so
    if kind == "later":
        return None
    try:
        return Checksum(kind).kind
    except UnknownChecksum as error:
        raise Refusal(Kind.BAD_REQUEST, str(error)) from error


def offset_of(request: web.Request, size: int) -> int:
    """Return where the body begins, after checking that it ends where the file does."""
    length = request.content_length
    if length is None:
        sentence = "The body has no Content-Length. Chunked bodies are not taken."
        raise Refusal(Kind.BAD_REQUEST, sentence, status=411)
    said = request.headers.get("Content-Range")
    offset, end, total = 0, length, size
    if said is not None:
        match = _RANGE.fullmatch(said)
        if match is None:
            sentence = f"Content-Range {said[:80]!r} is not like 'bytes 1000-1999/2000'."
            raise Refusal(Kind.BAD_REQUEST, sentence)
        total = int(match[3])
        offset, end = (int(match[1]), int(match[2]) + 1) if match[1] else (total, total)
    if total != size or end != size or end - offset != length:
        kind = Kind.TOO_LARGE if length > size else Kind.BAD_REQUEST
        raise Refusal(
            kind,
            f"The body has {length} bytes from {offset} of {total}, the upload was begun with "
            f"{size}. Send what is left of the file, all of it.",
        )
    return offset


async def body(request: web.Request, seconds: float) -> bytes:
    """Return a small body, which has to come within `seconds`.

    Raises:
        TimeoutError: It did not.
    """
    async with asyncio.timeout(seconds):
        return await request.read()


async def json_body(request: web.Request, seconds: float) -> dict[str, Any]:
    """Return a body that is a JSON object."""
    try:
        record = json.loads(await body(request, seconds))
    except (ValueError, RecursionError) as error:
        raise Refusal(Kind.BAD_REQUEST, f"The body is not JSON ({error}).") from error
    if not isinstance(record, dict):
        sentence = f"The body is a JSON {type(record).__name__}, expected an object."
        raise Refusal(Kind.BAD_REQUEST, sentence)
    return record
