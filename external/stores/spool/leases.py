"""The leases of a spool: what was put under an earlier one may go to the store under a later one.

    {"schema": 1, "first": 4, "newest": 7, "lost": 0, "why": ""}

That is so as long as nobody else had a lease in between, i.e. as tokens grow by one. `lost` is the
newest token that the store refused, and `why` what it said.
"""

from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from filelock import FileLock

from ...atomic import write_json
from ...schema import UnreadableFile, read_record
from ..store import Lease, LeaseLost

SCHEMA = 1


@dataclass(frozen=True)
class _Record:
    first: int = 0
    newest: int = 0
    lost: int = 0
    why: str = ""


class SpoolLeases:
    """The leases that this folder had; for several processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = FileLock(path.with_suffix(".lock"), thread_local=False, mode=0o666)

    def taken(self, lease: Lease) -> None:
        """Take note of a new lease; if the one before was of this folder too, it inherits."""
        with self._lock:
            record = self._read()
            first = record.first if lease.token == record.newest + 1 else lease.token
            self._write(replace(record, first=first, newest=lease.token))

    def lost(self, lease: Lease, why: str) -> None:
        """Take note that the store refused what was put under `lease`."""
        with self._lock:
            record = self._read()
            if lease.token > record.lost:
                self._write(replace(record, lost=lease.token, why=why))

    def check(self, lease: Lease | None) -> None:
        """Refuse a lease that is known to be lost.

        Raises:
            LeaseLost: It is, as the store said.
        """
        record = self._read()
        if lease is not None and lease.token <= record.lost:
            raise LeaseLost(record.why)

    def heir(self, lease: Lease | None) -> Lease | None:
        """Return the lease under which what `lease` spooled is uploaded."""
        record = self._read()
        if lease is not None and record.first <= lease.token <= record.newest:
            return replace(lease, token=record.newest)
        return lease

    def _read(self) -> _Record:
        with suppress(FileNotFoundError, UnreadableFile, KeyError, TypeError, ValueError):
            record = read_record(self._path, newest=SCHEMA)
            return _Record(
                first=int(record["first"]),
                newest=int(record["newest"]),
                lost=int(record.get("lost", 0)),
                why=str(record.get("why", "")),
            )
        return _Record()

    def _write(self, record: _Record) -> None:
        write_json(self._path, {"schema": SCHEMA, **asdict(record)})
