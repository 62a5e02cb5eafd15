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
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from ...schema import UnreadableFile
from ..sidecar import from_json, to_json
from ..store import StoredCheckpoint
from ..tcp.wire import Kind
from .asking import body, checked, fencing_token, job_name, json_body, needed_token
from .asking import step as step_of_address
from .guard import MOST_JSON, Guard, Handler
from .job_folder import JobFolder
from .jobs import Jobs, Limits
from .leases import Held
from .metrics import CONTENT_TYPE, Metrics
from .receiving import Receiving
from .refusal import Refusal
from .tokens import TokenFile


class Service:
    """Answers requests about the jobs under `root`, of which it is the only service."""

    def __init__(self, root: Path, tokens: TokenFile, limits: Limits) -> None:
        self.metrics = Metrics()
        self.draining = False
        self.connections: Callable[[], int] = lambda: 0
        self._jobs = Jobs(root, limits)
        self._limits = limits
        self._receiving = Receiving(self._jobs, self.metrics)
        self._guard = Guard(tokens, self.metrics, limits.pace.seconds, self._is_closing)

    def application(self) -> web.Application:
        """Return the aiohttp application."""
        application = web.Application(
            middlewares=[self._guard.middleware], client_max_size=MOST_JSON
        )
        job = "/jobs/{job}"
        file = job + "/uploads/{upload}/files/{name}"
        table: list[tuple[str, str, Handler]] = [
            ("GET", "/health", self._health),
            ("GET", "/metrics", self._metrics),
            ("PUT", job + "/uploads/{upload}", self._begin),
            ("DELETE", job + "/uploads/{upload}", self._receiving.give_up),
            ("HEAD", file, self._receiving.offset),
            ("PUT", file, self._receiving.receive),
            ("GET", job + "/checkpoints", self._list),
            ("PUT", job + "/checkpoints/{step}", self._receiving.commit),
            ("DELETE", job + "/checkpoints/{step}", self._delete),
            ("GET", job + "/checkpoints/{step}/files/{name}", self._send),
            ("POST", job + "/checkpoints/{step}/verify", self._verify),
            ("POST", job + "/lease", self._acquire),
            ("PUT", job + "/lease", self._renew),
            ("DELETE", job + "/lease", self._release),
        ]
        table.append(("*", "/{path:.*}", self._nothing))
        for method, path, handler in table:
            application.router.add_route(method, path, handler, expect_handler=self._guard.expect)
        application.on_response_prepare.append(self._prepared)
        return application

    def tidy(self) -> None:
        """Delete what an earlier service left half-done, in all jobs."""
        for job in self._jobs.folders():
            job.tidy()
            job.uploads.drop_idle(self._limits.upload_seconds)

    async def drop_idle_uploads(self) -> None:
        """Make the space of dead clients' uploads free, for ever."""
        while True:
            await asyncio.sleep(min(60.0, self._limits.upload_seconds))
            for folder in self._jobs.folders():
                job = self._jobs[folder.folder.name]
                async with job.lock:
                    await asyncio.to_thread(
                        job.folder.uploads.drop_idle, self._limits.upload_seconds
                    )

    async def drained(self) -> None:
        """Return when no request and no upload is under way any more."""
        self.draining = True
        while self._guard.active or self._receiving.under_way():
            await asyncio.sleep(0.05)

    async def _prepared(self, request: web.Request, response: web.StreamResponse) -> None:
        if isinstance(response, web.FileResponse) and request.method == "GET":
            self.metrics.add("sent_bytes_total", response.content_length or 0)

    async def _nothing(self, request: web.Request) -> web.Response:
        """Tell a wrong method from a wrong address; aiohttp's own answer fails on some Expect."""
        allowed: set[str] = set()
        for resource in request.app.router.resources():
            allowed |= (await resource.resolve(request))[1] - {"*"}
        if allowed:
            raise web.HTTPMethodNotAllowed(request.method, allowed)
        raise web.HTTPNotFound

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
        for job in self._jobs.folders():
            checkpoints, _ = job.checkpoints()
            gauges["checkpoints"] += len(checkpoints)
            gauges["stored_bytes"] += sum(checkpoint.bytes for checkpoint in checkpoints)
            gauges["uploads"] += len(job.uploads.ids())
        return {**gauges, "free_bytes": shutil.disk_usage(self._jobs.root).free}

    # Checkpoints.

    async def _list(self, request: web.Request) -> web.Response:
        name = job_name(request)
        folder = JobFolder(self._jobs.root / name)
        checkpoints, unreadable = await asyncio.to_thread(folder.checkpoints)
        unknown = await asyncio.to_thread(folder.unknown) if unreadable else {}
        records = [json.loads(to_json(checkpoint)) for checkpoint in checkpoints]
        return web.json_response(
            {"checkpoints": records, "unreadable": unreadable, "unknown": unknown}
        )

    async def _send(self, request: web.Request) -> web.StreamResponse:
        folder, step = JobFolder(self._jobs.root / job_name(request)), step_of_address(request)
        name = checked(request.match_info["name"], "File")
        path = await asyncio.to_thread(folder.file, step, name)
        headers = {
            "Content-Type": "application/octet-stream",
            "X-Content-Type-Options": "nosniff",
        }
        return web.FileResponse(path, chunk_size=1 << 20, headers=headers)

    async def _verify(self, request: web.Request) -> web.Response:
        folder, step = JobFolder(self._jobs.root / job_name(request)), step_of_address(request)
        sidecar = await body(request, self._limits.pace.seconds)
        try:
            asked = from_json(sidecar, where="The sidecar", step=step)
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
        name, step = job_name(request), step_of_address(request)
        job = self._jobs[name]
        async with job.lock:
            job.lease.check(fencing_token(request))
            there = await asyncio.to_thread(job.folder.delete, step)
        self.metrics.add("deletions_total", int(there))
        return web.json_response({"deleted": there})

    # Leases.

    async def _acquire(self, request: web.Request) -> web.Response:
        self._refuse_new()
        name = job_name(request)
        record = await json_body(request, self._limits.pace.seconds)
        holder = checked(record.get("holder"), "Holder")
        nonce = checked(record.get("nonce"), "Nonce")
        job = self._jobs[name]
        async with job.lock:
            await asyncio.to_thread(job.folder.create)
            held = await asyncio.to_thread(job.lease.acquire, holder, nonce)
            await asyncio.to_thread(job.folder.uploads.drop_older, held.token)
        return self._held(held, status=201)

    async def _renew(self, request: web.Request) -> web.Response:
        job = self._jobs[job_name(request)]
        async with job.lock:
            return self._held(job.lease.renew(needed_token(request)))

    async def _release(self, request: web.Request) -> web.Response:
        job = self._jobs[job_name(request)]
        token = needed_token(request)
        async with job.lock:
            await asyncio.to_thread(job.lease.release, token)
        return web.json_response({"released": token})

    def _held(self, held: Held, status: int = 200) -> web.Response:
        answer = {
            "holder": held.holder,
            "token": held.token,
            "seconds": self._limits.lease_seconds,
        }
        return web.json_response(answer, status=status)

    def _is_closing(self) -> bool:
        return self.draining and not self._receiving.under_way()

    def _refuse_new(self) -> None:
        if self.draining:
            raise Refusal(Kind.BUSY, "The service is stopping. Try again when it is back.")

    async def _begin(self, request: web.Request) -> web.Response:
        self._refuse_new()
        return await self._receiving.begin(request)
