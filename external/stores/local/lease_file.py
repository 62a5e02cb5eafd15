"""The lease of a local store: `lease`, which its holder locks, and `lease.json`, the newest one.

    {"schema": 1, "token": 3, "holder": "node-a", "host": "node-a.lan", "pid": 4711,
     "since": "2026-11-21 10:00:00"}

The operating system lets go of the lock when the holder dies; the token grows by one each time.
"""

import contextlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ...schema import UnreadableFile, read_record
from ..store import Lease, LeaseLost, check_name
from .draft import durable_file

SCHEMA = 1


class LeaseFile:
    """Grants and checks the leases of the store in `root`.

    Args:
        root: Of the store.
        changes: Makes the context in which names in `root` may change.
    """

    def __init__(self, root: Path, changes: Callable[[], AbstractContextManager[None]]) -> None:
        self.root = root
        self._changes = changes
        self._record = root / "lease.json"

    @contextlib.contextmanager
    def hold(self, holder: str) -> Iterator[Lease]:
        """Be the only holder for as long as the context lasts, or the process lives.

        Raises:
            LeaseLost: Somebody else is.
            UnreadableFile: The record of the newest lease is torn or altered.
        """
        check_name(holder, what="Holder")
        lock = FileLock(self.root / "lease", thread_local=False, mode=0o666)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise LeaseLost(
                f"'{self.root}' is leased to {self._describe()}. Wait for it to end, or use "
                "another root."
            ) from None
        try:
            with self._changes():
                lease = Lease(holder, self._newest()[1] + 1)
                self._write(lease)
            yield lease
        finally:
            lock.release()

    def check(self, lease: Lease) -> None:
        """Refuse a lease that is not the newest.

        Raises:
            LeaseLost: Somebody has leased the store since.
            UnreadableFile: The record of the newest lease is torn or altered.
        """
        if self._newest() != (lease.holder, lease.token):
            raise LeaseLost(
                f"'{self.root}' is no longer leased to {lease.holder!r} (lease {lease.token}) but "
                f"to {self._describe()}; nothing was written. Lease it again to go on."
            )

    def _newest(self) -> tuple[str, int]:
        try:
            record = read_record(self._record, newest=SCHEMA)
            return str(record["holder"]), int(record["token"])
        except FileNotFoundError:
            return "", 0
        except (KeyError, TypeError, ValueError) as error:
            raise UnreadableFile(
                f"'{self._record}' cannot be read ({error}). If nobody writes, delete it."
            ) from error

    def _write(self, lease: Lease) -> None:
        record: dict[str, Any] = {
            "schema": SCHEMA,
            "token": lease.token,
            "holder": lease.holder,
            "host": platform.node(),
            "pid": os.getpid(),
            "since": time.strftime("%F %T"),
        }
        with durable_file(self.root, json.dumps(record).encode() + b"\n") as temporary:
            temporary.replace(self._record)

    def _describe(self) -> str:
        try:
            record = read_record(self._record, newest=SCHEMA)
            return (
                f"{record['holder']!r} (process {record['pid']} on {record['host']} "
                f"since {record['since']})"
            )
        except (OSError, ValueError, KeyError):
            return "another process"
