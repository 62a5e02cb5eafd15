"""The leases of a spool: what was put under an earlier one may go to the store under a later one.

    {"schema": 1, "first": 4, "newest": 7}

That is so as long as nobody else had a lease in between, i.e. as tokens grow by one.
"""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..atomic import write_json
from ..schema import UnreadableFile, read_record
from .store import Lease

SCHEMA = 1


class SpoolLeases:
    """The leases that this folder had without anybody else's in between."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._first = self._newest = 0
        with suppress(FileNotFoundError, UnreadableFile, KeyError, TypeError, ValueError):
            record = read_record(path, newest=SCHEMA)
            self._first, self._newest = int(record["first"]), int(record["newest"])

    def taken(self, lease: Lease) -> None:
        """Take note of a new lease; if the one before was of this folder too, it inherits."""
        if lease.token != self._newest + 1:
            self._first = lease.token
        self._newest = lease.token
        record = {"schema": SCHEMA, "first": self._first, "newest": self._newest}
        write_json(self._path, record)

    def heir(self, lease: Lease | None) -> Lease | None:
        """Return the lease under which what `lease` spooled is uploaded."""
        if lease is not None and self._first <= lease.token <= self._newest:
            return replace(lease, token=self._newest)
        return lease
