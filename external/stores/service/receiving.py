"""Uploads as requests: begun, received in pieces, committed or given up."""

import asyncio
import functools
import json
from pathlib import Path
from typing import Any

from aiohttp import web

from ...schema import UnreadableFile
from ..sidecar import from_json, to_json
from ..tcp.wire import UPLOAD_ID, UPLOAD_OFFSET, Kind
from .asking import body, checked, checksum_kind, fencing_token, job_name, json_body, offset_of
from .asking import step as step_of_address
from .incoming import receive
from .jobs import Jobs
from .metrics import Metrics
from .refusal import Refusal
from .uploads import parse_declaration

BUSY_SECONDS = 5.0
"""An upload is under way if something was done for it in so many seconds."""


class Receiving:
    """Handlers of the requests about uploads."""

    def __init__(self, jobs: Jobs, metrics: Metrics) -> None:
        self._jobs, self._metrics = jobs, metrics
        self._receiving: dict[Path, asyncio.Task[Any]] = {}
        self._touched: dict[tuple[str, str], float] = {}

    async def begin(self, request: web.Request) -> web.Response:
        """Say what will come."""
        name, upload = job_name(request), request.match_info["upload"]
        job = self._jobs[name]
        token = fencing_token(request)
        job.lease.check(token)
        try:
            step, sizes = parse_declaration(
                await json_body(request, self._jobs.limits.pace.seconds)
            )
        except ValueError as error:
            raise Refusal(Kind.BAD_REQUEST, str(error)) from error
        await self._jobs.alone(name, job.folder.begin, upload, step, sizes, token)
        self._touch(name, upload)
        return web.json_response({"upload": upload}, status=201)

    async def give_up(self, request: web.Request) -> web.Response:
        """Delete what came."""
        name, upload = job_name(request), request.match_info["upload"]
        job = self._jobs[name]
        for path in [p for p in self._receiving if upload in p.parts]:
            await self._supersede(path)
        await self._jobs.alone(name, job.folder.uploads.drop, upload)
        self._touched.pop((name, upload), None)
        return web.json_response({"given_up": upload})

    async def offset(self, request: web.Request) -> web.Response:
        """Say how much of a file came."""
        path, _ = self._file_of_upload(request)
        await self._supersede(path)
        return web.Response(headers={UPLOAD_OFFSET: str(_size(path))})

    async def receive(self, request: web.Request) -> web.Response:
        """Take a file, or the rest of one."""
        path, size = self._file_of_upload(request)
        offset, kind = offset_of(request, size), checksum_kind(request)
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
                request,
                path,
                offset=offset,
                size=size,
                pace=self._jobs.limits.pace,
                kind=kind,
                count=functools.partial(self._count_received, key),
            )
        except FileNotFoundError as error:
            raise Refusal(Kind.NO_UPLOAD, "The upload was given up. Begin again.") from error
        finally:
            if self._receiving.get(path) is task:
                del self._receiving[path]
        if received.checksum is not None and path.exists():
            self._jobs[key[0]].folder.uploads.remember(path, received.checksum)
        self._touch(*key)
        response = web.json_response({"bytes": received.bytes, "checksum": received.checksum})
        if received.must_close:
            response.force_close()
        return response

    async def commit(self, request: web.Request) -> web.Response:
        """Take the sidecar: the upload becomes a checkpoint."""
        name, step = job_name(request), step_of_address(request)
        if request.headers.get("If-None-Match") != "*":
            sentence = "A commit must be conditional. Send 'If-None-Match: *'."
            raise Refusal(Kind.BAD_REQUEST, sentence, status=428)
        sidecar = await body(request, self._jobs.limits.pace.seconds)
        try:
            checkpoint = from_json(sidecar, where="The sidecar", step=step)
        except UnreadableFile as error:
            raise Refusal(Kind.BAD_REQUEST, str(error)) from error
        job, upload = self._jobs[name], request.headers.get(UPLOAD_ID, "")
        async with job.lock:
            job.lease.check(fencing_token(request))
            kept, created, pruned = await asyncio.to_thread(job.folder.commit, upload, checkpoint)
        self._touched.pop((name, upload), None)
        self._metrics.add("commits_total", int(created))
        self._metrics.add("deletions_total", len(pruned))
        answer = {"step": step, "pruned": pruned, "sidecar": json.loads(to_json(kept))}
        return web.json_response(answer, status=201 if created else 200)

    def _file_of_upload(self, request: web.Request) -> tuple[Path, int]:
        """Return where a file of an upload goes and how long it will be."""
        uploads = self._jobs[job_name(request)].folder.uploads
        upload = request.match_info["upload"]
        name = checked(request.match_info["name"], "File")
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
        self._metrics.add("received_bytes_total", received)
        self._touch(*key)

    def _touch(self, job: str, upload: str) -> None:
        self._touched[job, upload] = asyncio.get_running_loop().time()

    def under_way(self) -> bool:
        """Return whether something was done for an upload lately."""
        since = asyncio.get_running_loop().time() - BUSY_SECONDS
        self._touched = {key: when for key, when in self._touched.items() if when > since}
        return bool(self._touched)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
