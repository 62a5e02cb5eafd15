"""Leases of jobs: one writer at a time, told apart by a fencing token that only grows.

    {"schema": 1, "token": 7, "holder": "node-a", "nonce": "5f2a…", "held": true}

This record, `service-lease.json` in the job's folder, makes tokens grow over restarts too. Times
are measured by the service's monotonic clock: nobody's wall clock matters. After a restart a lease
that was held runs for its full time once more, so that its holder can renew it.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from ...atomic import write_json
from ...schema import UnreadableFile, read_record
from ..tcp.wire import Kind
from .refusal import Refusal

SCHEMA = 1
FILE_NAME = "service-lease.json"


@dataclass(frozen=True)
class Held:
    """The newest lease of a job; `nonce` tells a repeated request from a second writer."""

    token: int = 0
    holder: str = ""
    nonce: str = ""
    held: bool = False


class JobLease:
    """The lease of one job. Not for use by several threads at once.

    Args:
        folder: The job's.
        seconds: How long a lease lasts if it is not renewed.
        clock: Seconds that only grow.
    """

    def __init__(
        self, folder: Path, *, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.seconds = seconds
        self._path = folder / FILE_NAME
        self._clock = clock
        self._now = self._read()
        self._until = clock() + seconds

    def acquire(self, holder: str, nonce: str) -> Held:
        """Give out the lease.

        Raises:
            Refusal: Another holder has it.
        """
        if self.is_held():
            if self._now.nonce == nonce:
                self._until = self._clock() + self.seconds
                return self._now
            left = self._until - self._clock()
            raise Refusal(
                Kind.LEASE,
                f"{self._now.holder!r} holds the lease for {left:.0f} s more, unless it renews it. "
                "Wait for that run to end, or use another job id.",
                seconds_left=left,
            )
        self._write(Held(self._now.token + 1, holder, nonce, held=True))
        return self._now

    def renew(self, token: int) -> Held:
        """Let the lease last longer; one that ran out comes back if nobody took it since.

        Raises:
            Refusal: A newer lease was given out, or this one was given back.
        """
        self.check(token)
        if not self._now.held:
            raise Refusal(Kind.LEASE, f"The lease with token {token} was given back. Take another.")
        self._until = self._clock() + self.seconds
        return self._now

    def release(self, token: int) -> None:
        """Give the lease back; nothing happens if it is not the newest."""
        if self._now.held and self._now.token == token:
            self._write(Held(token, self._now.holder, self._now.nonce, held=False))

    def check(self, token: int | None) -> None:
        """Refuse a write under an old lease; None is a write without one.

        Raises:
            Refusal: `token` is not the newest.
        """
        if token is not None and (token != self._now.token or token < 1):
            raise Refusal(
                Kind.LEASE,
                f"The lease with token {token} is not the newest: the newest has token "
                f"{self._now.token}, of {self._now.holder!r}. Stop this writer.",
            )

    def is_held(self) -> bool:
        """Return whether somebody has the lease now."""
        return self._now.held and self._clock() < self._until

    def _write(self, held: Held) -> None:
        write_json(self._path, {"schema": SCHEMA, **asdict(held)})
        self._now = held
        self._until = self._clock() + self.seconds

    def _read(self) -> Held:
        try:
            record = read_record(self._path, newest=SCHEMA)
        except FileNotFoundError:
            return Held()
        try:
            return Held(
                int(record["token"]),
                str(record["holder"]),
                str(record["nonce"]),
                bool(record["held"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UnreadableFile(f"'{self._path}' is not a lease ({error!r}).") from error
