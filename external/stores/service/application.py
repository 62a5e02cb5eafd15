"""The HTTP application of the TCP store: which request does what. `wire.py` has the table.

What protects it: every request except GET /health needs a bearer token, compared in constant time.
Signing each request instead would not protect more here: a signature that may be sent again is as
good as the token, and one that may not needs a nonce store and equal clocks at both ends, and
still leaves the checkpoint readable on the way. TLS does all of this, so: bearer over TLS, plain
TCP on loopback only. Sending a request again harms nothing by itself: uploads have ids of their
own, commits are conditional, writes carry a fencing token.

Names of jobs and files are checked before they become a path, bodies are bounded in size and
slowness, and nothing that arrives is ever unpickled or run.
"""

import asyncio
import errno
import functools
import json
import logging
import re
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from ...schema import UnreadableFile
from ..retention import Retention
from ..sidecar import from_json, to_json
from ..store import StoredCheckpoint, check_name
from ..wire import FENCING_TOKEN, UPLOAD_ID, UPLOAD_OFFSET, Kind
from .incoming import Pace, receive
from .job_folder import JobFolder
from .leases import Held, JobLease
from .metrics import CONTENT_TYPE, Metrics
from .refusal import Refusal
from .tokens import TokenFile
from .uploads import parse_declaration

MOST_JSON = 4 << 20
BUSY_SECONDS = 5.0
"""An upload is under way if something was done for it in so many seconds."""

_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18})")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_T = TypeVar("_T")
_log = logging.getLogger("curitorch.stores.service")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the service takes.

    Attributes:
        quota: Bytes that each job may use; None for no limit.
        most_bytes: Of one file; None for no limit.
        retention: What stays of a job after a commit; None for all.
        lease_seconds: How long a lease lasts without being renewed.
        upload_seconds: After how long an upload that nothing is added to is dropped.
        pace: How slow a client may be.
    """

    quota: int | None = None
    most_bytes: int | None = None
    retention: Retention | None = None
    lease_seconds: float = 60.0
    upload_seconds: float = 3600.0
    pace: Pace = field(default_factory=Pace)


class _Job:
    def __init__(self, folder: Path, limits: Limits) -> None:
        self.lock = asyncio.Lock()
        self.folder = JobFolder(
            folder,
            quota=limits.quota,
            most_bytes=limits.most_bytes,
            retention=limits.retention,
        )
        self.lease = JobLease(folder, seconds=limits.lease_seconds)


class Service:
    """Answers requests about the jobs under `root`, of which it is the only service."""

    def __init__(self, root: Path, tokens: TokenFile, limits: Limits) -> None:
        self.root = root
        self.tokens = tokens
        self.limits = limits
        self.metrics = Metrics()
        self.draining = False
        self.connections: Callable[[], int] = lambda: 0
        self._jobs: dict[str, _Job] = {}
        self._receiving: dict[Path, asyncio.Task[Any]] = {}
        self._touched: dict[tuple[str, str], float] = {}
        self._active = 0

    def application(self) -> web.Application:
        """Return the aiohttp application."""
        application = web.Application(middlewares=[self._guard], client_max_size=MOST_JSON)
        job = "/jobs/{job}"
        file = job + "/uploads/{upload}/files/{name}"
        table: list[tuple[str, str, _Handler]] = [
            ("GET", "/health", self._health),
            ("GET", "/metrics", self._metrics),
            ("PUT", job + "/uploads/{upload}", self._begin),
            ("DELETE", job + "/uploads/{upload}", self._give_up),
            ("HEAD", file, self._offset),
            ("PUT", file, self._receive),
            ("GET", job + "/checkpoints", self._list),
            ("PUT", job + "/checkpoints/{step}", self._commit),
            ("DELETE", job + "/checkpoints/{step}", self._delete),
            ("GET", job + "/checkpoints/{step}/files/{name}", self._send),
            ("POST", job + "/checkpoints/{step}/verify", self._verify),
            ("POST", job + "/lease", self._acquire),
            ("PUT", job + "/lease", self._renew),
            ("DELETE", job + "/lease", self._release),
        ]
        for method, path, handler in table:
            application.router.add_route(
                method, path, handler, expect_handler=self._hundred_continue
            )
        application.on_response_prepare.append(self._prepared)
        return application

    def tidy(self) -> None:
        """Delete what an earlier service left half-done, in all jobs."""
        for job in self._folders():
            job.tidy()
            job.uploads.drop_idle(self.limits.upload_seconds)

    async def drop_idle_uploads(self) -> None:
        """Make the space of dead clients' uploads free, for ever."""
        while True:
            await asyncio.sleep(min(60.0, self.limits.upload_seconds))
            for name, job in list(self._jobs.items()):
                await self._in_job(name, job.folder.uploads.drop_idle, self.limits.upload_seconds)

    async def drained(self) -> None:
        """Return when no request and no upload is under way any more."""
        self.draining = True
        while self._active or self._uploads_under_way():
            await asyncio.sleep(0.05)

    # What every request goes through.

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Check the token, and turn whatever goes wrong into a status and a sentence."""
        self._active += 1
        try:
            response = await self._answer(request, handler)
        finally:
            self._active -= 1
        method = request.method if request.method in _METHODS else "other"
        self.metrics.add("requests_total", method=method, status=str(response.status))
        response.headers["Cache-Control"] = "no-store"
        if self.draining and not self._uploads_under_way():
            response.force_close()
        return response

    async def _answer(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        try:
            self._authorize(request)
            return await handler(request)
        except Refusal as refusal:
            return self._refuse(request, refusal)
        except web.HTTPException as error:
            sentence = {
                404: f"There is nothing at {request.path[:200]!r}. See wire.py for addresses.",
                405: f"{request.method[:20]!r} cannot be done here. See wire.py for methods.",
                413: f"The JSON body is larger than {MOST_JSON} bytes. Make 'details' smaller.",
            }.get(error.status, error.reason)
            kind = {404: Kind.NOT_FOUND, 413: Kind.TOO_LARGE}.get(error.status, Kind.BAD_REQUEST)
            return self._refuse(request, Refusal(kind, sentence, status=error.status))
        except UnreadableFile as error:
            return self._refuse(request, Refusal(Kind.UNREADABLE, str(error)))
        except TimeoutError:
            sentence = f"The body did not come in {self.limits.pace.seconds:g} s. Send it faster."
            return self._refuse(request, Refusal(Kind.TOO_SLOW, sentence))
        except ConnectionError:
            raise  # the client went away: there is nobody to answer
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                sentence = "The service's disk is full. Delete old checkpoints or keep fewer."
                return self._refuse(request, Refusal(Kind.DISK_FULL, sentence, errno=errno.ENOSPC))
            return self._failed(request, error)
        except Exception as error:
            return self._failed(request, error)

    def _authorize(self, request: web.Request) -> None:
        if request.path == "/health":
            return
        self.tokens.check(request.headers.get("Authorization"), job=request.match_info.get("job"))
        if "Content-Encoding" in request.headers:
            sentence = "Encoded bodies are not taken. Send the bytes as they are."
            raise Refusal(Kind.BAD_REQUEST, sentence, status=415)

    def _refuse(self, request: web.Request, refusal: Refusal) -> web.Response:
        self.metrics.add("refusals_total", kind=refusal.kind.value)
        response = web.json_response(refusal.record(), status=refusal.status)
        if refusal.status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        if refusal.status == 503:
            response.headers["Retry-After"] = "1"
        if request.body_exists and not request.content.is_eof():
            response.force_close()  # the rest of the body is not wanted
        return response

    def _failed(self, request: web.Request, error: Exception) -> web.Response:
        _log.error("%s %r failed", request.method, request.path, exc_info=error)
        sentence = f"The service failed ({type(error).__name__}). Its log says more."
        return self._refuse(request, Refusal(Kind.FAILED, sentence))

    async def _hundred_continue(self, request: web.Request) -> web.StreamResponse | None:
        """Refuse before the body is sent."""
        try:
            self._authorize(request)
        except Refusal as refusal:
            return self._refuse(request, refusal)
        if request.headers["Expect"].lower() != "100-continue":
            sentence = "The only expectation that is met is 100-continue."
            return self._refuse(request, Refusal(Kind.BAD_REQUEST, sentence, status=417))
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
        return None

    async def _prepared(self, request: web.Request, response: web.StreamResponse) -> None:
        if isinstance(response, web.FileResponse) and request.method == "GET":
            self.metrics.add("sent_bytes_total", response.content_length or 0)

    # Health and metrics.

    async def _health(self, request: web.Request) -> web.Response:
        if self.draining:
            return web.json_response({"status": "stopping"}, status=503)
        return web.json_response({"status": "ok"})

    async def _metrics(self, request: web.Request) -> web.Response:
        gauges = await asyncio.to_thread(self._gauges)
        page = self.metrics.text({**gauges, "connections": self.connections()})
        return web.Response(body=page.encode(), headers={"Content-Type": CONTENT_TYPE})

    def _gauges(self) -> dict[str, float]:
        gauges = {"uploads": 0, "stored_bytes": 0, "checkpoints": 0}
        for job in self._folders():
            checkpoints, _ = job.checkpoints()
            gauges["checkpoints"] += len(checkpoints)
            gauges["stored_bytes"] += sum(checkpoint.bytes for checkpoint in checkpoints)
            gauges["uploads"] += len(job.uploads.ids())
        return {**gauges, "free_bytes": shutil.disk_usage(self.root).free}

    # Uploads.

    async def _begin(self, request: web.Request) -> web.Response:
        self._refuse_new()
        name, upload = _job_name(request), request.match_info["upload"]
        job = self._job(name)
        token = _fencing_token(request)
        job.lease.check(token)
        try:
            step, sizes = parse_declaration(await self._json(request))
        except ValueError as error:
            raise Refusal(Kind.BAD_REQUEST, str(error)) from error
        await self._in_job(name, job.folder.begin, upload, step, sizes, token)
        self._touch(name, upload)
        return web.json_response({"upload": upload}, status=201)

    async def _give_up(self, request: web.Request) -> web.Response:
        name, upload = _job_name(request), request.match_info["upload"]
        job = self._job(name)
        for path in [p for p in self._receiving if upload in p.parts]:
            await self._supersede(path)
        await self._in_job(name, job.folder.uploads.drop, upload)
        self._touched.pop((name, upload), None)
        return web.json_response({"given_up": upload})

    async def _offset(self, request: web.Request) -> web.Response:
        path, _ = self._file_of_upload(request)
        await self._supersede(path)
        return web.Response(headers={UPLOAD_OFFSET: str(_size(path))})

    async def _receive(self, request: web.Request) -> web.Response:
        path, size = self._file_of_upload(request)
        offset = _offset_of(request, size)
        await self._supersede(path)
        if offset not in (0, _size(path)):
            raise Refusal(
                Kind.OFFSET,
                f"The body begins at {offset}, the service has {_size(path)} bytes. "
                "Go on from Upload-Offset.",
                offset=_size(path),
            )
        key = (request.match_info["job"], request.match_info["upload"])
        task = asyncio.current_task()
        assert task is not None
        self._receiving[path] = task
        try:
            received = await receive(
                request.content,
                path,
                offset=offset,
                size=size,
                pace=self.limits.pace,
                hashed=request.query.get("checksum") != "later",
                count=functools.partial(self._count_received, key),
            )
        except FileNotFoundError as error:
            raise Refusal(Kind.NO_UPLOAD, "The upload was given up. Begin again.") from error
        finally:
            if self._receiving.get(path) is task:
                del self._receiving[path]
        if received.checksum is not None and path.exists():
            self._job(key[0]).folder.uploads.remember(path, received.checksum)
        self._touch(*key)
        return web.json_response({"bytes": received.bytes, "checksum": received.checksum})

    async def _commit(self, request: web.Request) -> web.Response:
        name, step = _job_name(request), _step(request)
        if request.headers.get("If-None-Match") != "*":
            sentence = "A commit must be conditional. Send 'If-None-Match: *'."
            raise Refusal(Kind.BAD_REQUEST, sentence, status=428)
        body = await self._body(request)
        try:
            checkpoint = from_json(body, where="The sidecar", step=step)
        except UnreadableFile as error:
            raise Refusal(Kind.BAD_REQUEST, str(error)) from error
        job, upload = self._job(name), request.headers.get(UPLOAD_ID, "")
        async with job.lock:
            job.lease.check(_fencing_token(request))
            created, pruned = await asyncio.to_thread(job.folder.commit, upload, checkpoint)
        self._touched.pop((name, upload), None)
        self.metrics.add("commits_total", int(created))
        self.metrics.add("deletions_total", len(pruned))
        answer = {"step": step, "pruned": pruned}
        return web.json_response(answer, status=201 if created else 200)

    # Checkpoints.

    async def _list(self, request: web.Request) -> web.Response:
        name = _job_name(request)
        folder = JobFolder(self.root / name)
        checkpoints, unreadable = await asyncio.to_thread(folder.checkpoints)
        records = [json.loads(to_json(checkpoint)) for checkpoint in checkpoints]
        return web.json_response({"checkpoints": records, "unreadable": unreadable})

    async def _send(self, request: web.Request) -> web.StreamResponse:
        folder, step = JobFolder(self.root / _job_name(request)), _step(request)
        name = _checked(request.match_info["name"], "File")
        path = await asyncio.to_thread(folder.file, step, name)
        headers = {
            "Content-Type": "application/octet-stream",
            "X-Content-Type-Options": "nosniff",
        }
        return web.FileResponse(path, chunk_size=1 << 20, headers=headers)

    async def _verify(self, request: web.Request) -> web.Response:
        folder, step = JobFolder(self.root / _job_name(request)), _step(request)
        body = await self._body(request)
        try:
            asked = from_json(body, where="The sidecar", step=step)
        except UnreadableFile as error:
            raise Refusal(Kind.BAD_REQUEST, str(error)) from error
        try:
            await asyncio.to_thread(self._verify_now, folder, asked)
        except UnreadableFile as error:
            return web.json_response({"valid": False, "reason": str(error)})
        return web.json_response({"valid": True})

    def _verify_now(self, folder: JobFolder, asked: StoredCheckpoint) -> None:
        stored = folder.read(asked.step)
        if stored is None or stored.files != asked.files:
            raise UnreadableFile(
                f"Step {asked.step} of {folder.folder.name!r} was deleted, or is another one now."
            )
        folder.verify(asked)

    async def _delete(self, request: web.Request) -> web.Response:
        name, step = _job_name(request), _step(request)
        job = self._job(name)
        async with job.lock:
            job.lease.check(_fencing_token(request))
            there = await asyncio.to_thread(job.folder.delete, step)
        self.metrics.add("deletions_total", int(there))
        return web.json_response({"deleted": there})

    # Leases.

    async def _acquire(self, request: web.Request) -> web.Response:
        self._refuse_new()
        name = _job_name(request)
        record = await self._json(request)
        holder = _checked(record.get("holder"), "Holder")
        nonce = _checked(record.get("nonce"), "Nonce")
        job = self._job(name)
        async with job.lock:
            await asyncio.to_thread(job.folder.create)
            held = await asyncio.to_thread(job.lease.acquire, holder, nonce)
            await asyncio.to_thread(job.folder.uploads.drop_older, held.token)
        return self._held(held, status=201)

    async def _renew(self, request: web.Request) -> web.Response:
        job = self._job(_job_name(request))
        async with job.lock:
            return self._held(job.lease.renew(_needed_token(request)))

    async def _release(self, request: web.Request) -> web.Response:
        job = self._job(_job_name(request))
        token = _needed_token(request)
        async with job.lock:
            await asyncio.to_thread(job.lease.release, token)
        return web.json_response({"released": token})

    def _held(self, held: Held, status: int = 200) -> web.Response:
        answer = {"holder": held.holder, "token": held.token, "seconds": self.limits.lease_seconds}
        return web.json_response(answer, status=status)

    # What handlers share.

    def _job(self, name: str) -> _Job:
        if name not in self._jobs:
            self._jobs[name] = _Job(self.root / name, self.limits)
        return self._jobs[name]

    def _folders(self) -> list[JobFolder]:
        return [
            JobFolder(path)
            for path in sorted(self.root.iterdir())
            if path.is_dir() and not path.name.startswith(".")
        ]

    async def _in_job(self, name: str, function: Callable[..., _T], *arguments: Any) -> _T:
        """Call `function` in a thread, alone in its job."""
        async with self._job(name).lock:
            return await asyncio.to_thread(function, *arguments)

    async def _body(self, request: web.Request) -> bytes:
        async with asyncio.timeout(self.limits.pace.seconds):
            return await request.read()

    async def _json(self, request: web.Request) -> dict[str, Any]:
        try:
            record = json.loads(await self._body(request))
        except (ValueError, RecursionError) as error:
            raise Refusal(Kind.BAD_REQUEST, f"The body is not JSON ({error}).") from error
        if not isinstance(record, dict):
            sentence = f"The body is a JSON {type(record).__name__}, expected an object."
            raise Refusal(Kind.BAD_REQUEST, sentence)
        return record

    def _file_of_upload(self, request: web.Request) -> tuple[Path, int]:
        """Return where a file of an upload goes and how long it will be."""
        uploads = self._job(_job_name(request)).folder.uploads
        upload = request.match_info["upload"]
        name = _checked(request.match_info["name"], "File")
        path = uploads.file(upload, name)
        _, sizes = uploads.declared(upload)
        if name not in sizes:
            sentence = f"The upload has no file {name!r}; it has {sorted(sizes)}."
            raise Refusal(Kind.BAD_REQUEST, sentence)
        self._touch(request.match_info["job"], upload)
        return path, sizes[name]

    async def _supersede(self, path: Path) -> None:
        """End the request that still writes `path`: its client has come back on another."""
        task = self._receiving.get(path)
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.wait([task])

    def _count_received(self, key: tuple[str, str], received: int) -> None:
        self.metrics.add("received_bytes_total", received)
        self._touch(*key)

    def _touch(self, job: str, upload: str) -> None:
        self._touched[job, upload] = asyncio.get_running_loop().time()

    def _uploads_under_way(self) -> bool:
        since = asyncio.get_running_loop().time() - BUSY_SECONDS
        self._touched = {key: when for key, when in self._touched.items() if when > since}
        return bool(self._touched)

    def _refuse_new(self) -> None:
        if self.draining:
            raise Refusal(Kind.BUSY, "The service is stopping. Try again when it is back.")


_METHODS = {"GET", "HEAD", "PUT", "POST", "DELETE"}


def _job_name(request: web.Request) -> str:
    return _checked(request.match_info["job"], "Job")


def _checked(name: object, what: str) -> str:
    try:
        return check_name(name if isinstance(name, str) else "", what=what)
    except ValueError as error:
        raise Refusal(Kind.BAD_REQUEST, str(error)) from error


def _step(request: web.Request) -> int:
    word = request.match_info["step"]
    if not re.fullmatch(r"[0-9]{1,18}", word):
        sentence = f"{word[:80]!r} is not a step. Use an integer of at least 0."
        raise Refusal(Kind.BAD_REQUEST, sentence)
    return int(word)


def _fencing_token(request: web.Request) -> int | None:
    word = request.headers.get(FENCING_TOKEN)
    if word is None:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", word):
        raise Refusal(Kind.BAD_REQUEST, f"{FENCING_TOKEN} {word[:80]!r} is not a number.")
    return int(word)


def _needed_token(request: web.Request) -> int:
    token = _fencing_token(request)
    if token is None:
        raise Refusal(Kind.BAD_REQUEST, f"Which lease? Send its {FENCING_TOKEN}.")
    return token


def _offset_of(request: web.Request, size: int) -> int:
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


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
