"""The jobs under the service's root: each with its folder, its lease and its turn."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..retention import Retention
from .incoming import Pace
from .job_folder import JobFolder
from .leases import JobLease

_T = TypeVar("_T")


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


class Job:
    """A job; whoever changes something in it holds its lock."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.lock = asyncio.Lock()
        self.folder = JobFolder(
            folder,
            quota=limits.quota,
            most_bytes=limits.most_bytes,
            retention=limits.retention,
        )
        self.lease = JobLease(folder, seconds=limits.lease_seconds)


class Jobs:
    """Finds jobs; each is one object for as long as the service runs."""

    def __init__(self, root: Path, limits: Limits) -> None:
        self.root = root
        self.limits = limits
        self._known: dict[str, Job] = {}

    def __getitem__(self, name: str) -> Job:
        """Return the job of that name, which was checked."""
        if name not in self._known:
            self._known[name] = Job(self.root / name, self.limits)
        return self._known[name]

    def folders(self) -> list[JobFolder]:
        """Return the folders of all jobs on the disk, to read."""
        return [
            JobFolder(path)
            for path in sorted(self.root.iterdir())
            if path.is_dir() and not path.name.startswith(".")
        ]

    async def alone(self, name: str, function: Callable[..., _T], *arguments: Any) -> _T:
        """Call `function` in a thread, alone in its job."""
        async with self[name].lock:
            return await asyncio.to_thread(function, *arguments)
