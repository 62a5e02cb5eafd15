"""What a spool was asked to prune while checkpoints waited: done when the store has got them.

{"schema": 1, "retention": {"newest": 3, "best": 0, "monitor": null, "mode": "min",
 "every": null}, "lease": ["node-a", 3]}
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from ...atomic import write_json
from ...schema import UnreadableFile, read_record
from ..retention import Retention
from ..store import Lease

SCHEMA = 1


@dataclass(frozen=True)
class PruneRequest:
    """What stays, and whose lease it is done under."""

    retention: Retention
    lease: Lease | None


class SpoolPruning:
    """The last request, for several processes; it outlives them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = FileLock(path.with_suffix(".lock"), thread_local=False, mode=0o666)

    def ask(self, request: PruneRequest) -> None:
        """Ask for it; an earlier request counts no more."""
        lease = request.lease
        record = {
            "schema": SCHEMA,
            "retention": asdict(request.retention),
            "lease": None if lease is None else [lease.holder, lease.token],
        }
        with self._lock:
            write_json(self._path, record)

    def asked(self) -> PruneRequest | None:
        """Return what was asked for; None if nothing was."""
        with suppress(FileNotFoundError, UnreadableFile, KeyError, TypeError, ValueError):
            record = read_record(self._path, newest=SCHEMA)
            lease = record["lease"]
            return PruneRequest(
                Retention(**record["retention"]),
                None if lease is None else Lease(str(lease[0]), int(lease[1])),
            )
        return None

    def done(self, request: PruneRequest, *, unless: Callable[[], bool]) -> None:
        """Forget `request`, unless another came meanwhile, or something that it is meant for.

        Args:
            request: What was done.
            unless: Whether checkpoints wait: whoever asks has put before.
        """
        with self._lock:
            if self.asked() == request and not unless():
                self._path.unlink()
