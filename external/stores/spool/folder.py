"""What waits in a spool's folder; several processes of one run may put into it.

<folder>/pending/       a `LocalStore` of what the store has not got yet
<folder>/refused/       one of what the store will never take: kept for people to look at
<folder>/leases.json    see spool_leases.py
<folder>/prune.json     see spool_pruning.py
<folder>/lock           held by the process that uploads
<folder>/saving         held while names in pending change

What a checkpoint waits with, as the details of its sidecar there:
    {"number": 7, "details": {"epoch": 4}, "lease": ["node-a", 3]}
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from ...atomic import copy_or_link
from ...schema import UnreadableFile
from ..local import LocalStore
from ..measuring import is_same, measured
from ..sidecar import folder_name
from ..store import CheckpointExists, Lease, StoredCheckpoint, StoredFile, StoreError
from .leases import SpoolLeases
from .pruning import SpoolPruning

_POLL = 0.005  # seconds between two tries to get the lock


class SpoolFull(StoreError):
    """The store has not taken enough for another checkpoint to fit; nothing was saved."""


@dataclass(frozen=True)
class Spooled:
    """A checkpoint that waits: what the store will get, under which lease, as the how-manieth."""

    number: int
    checkpoint: StoredCheckpoint
    lease: Lease | None
    paths: dict[str, Path]


class SpoolFolder:
    """Keeps what waits.

    Args:
        folder: Made if it is not there.
        limit_bytes: What may lie there at most.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = folder.absolute()
        self.limit_bytes = limit_bytes
        self.folder.mkdir(parents=True, exist_ok=True)
        self.pending = LocalStore(self.folder / "pending")
        self.refused = LocalStore(self.folder / "refused")
        self.leases = SpoolLeases(self.folder / "leases.json")
        self.pruning = SpoolPruning(self.folder / "prune.json")

    def waiting(self) -> list[Spooled]:
        """Return what the store has not got yet, oldest put first."""
        return sorted(map(self._spooled, self.pending.list()), key=lambda each: each.number)

    def find(self, checkpoint: StoredCheckpoint) -> StoredCheckpoint | None:
        """Return how `checkpoint` is called in `pending`; None if it does not wait there."""
        for each in self.pending.list():
            if each.step == checkpoint.step and each.files == checkpoint.files:
                return each
        return None

    def save(
        self,
        step: int,
        files: Mapping[str, Path],
        *,
        details: Mapping[str, Any],
        lease: Lease | None,
        move: bool,
        known: Mapping[str, StoredFile] | None,
        trouble: Exception | None,
    ) -> StoredCheckpoint:
        """Put a checkpoint here, as `Store.put` would.

        Args:
            step: As for `Store.put`, like all but the last.
            files: Of the checkpoint.
            details: For the sidecar.
            lease: Under which the store will get it.
            move: Whether `files` may be taken over.
            known: Sizes and checksums.
            trouble: Why the store takes nothing, for the message if there is no room.

        Raises:
            SpoolFull: There is no room.
            LeaseLost: The store has refused what was put under `lease`.
        """
        self.leases.check(lease)
        size = sum(Path(path).stat().st_size for path in files.values())
        with self._saving():
            self._check_room(step, size, trouble)
            wrapped = {
                "number": 1 + max((each.number for each in self.waiting()), default=0),
                "details": dict(details),
                "lease": None if lease is None else [lease.holder, lease.token],
            }
            try:
                put = self.pending.put(step, files, details=wrapped, move=move, known=known)
            except CheckpointExists:
                return self._same(step, files, dict(details), known or {})
        return self._spooled(put).checkpoint

    def remove(self, spooled: Spooled) -> bool:
        """Remove what waited; returns False if it was not there any more."""
        with self._saving():
            there = any(each == spooled for each in self.waiting())
            if there:
                self.pending.delete(spooled.checkpoint.step)
        return there

    def delete(self, step: int) -> None:
        """Remove whatever waits to be the checkpoint of `step`."""
        with self._saving():
            self.pending.delete(step)

    def set_aside(self, spooled: Spooled) -> str:
        """Move what the store refused to `refused`; returns where it is now, for the message."""
        step, found = spooled.checkpoint.step, f"it is in '{self.refused.root}'"
        self.refused.delete(step)
        try:
            with self.refused.drafting() as folder:
                taken = {name: folder / name for name in spooled.paths}
                for name, path in spooled.paths.items():
                    copy_or_link(path, taken[name])
                self.refused.put(step, taken, details=spooled.checkpoint.details, move=True)
        except (FileNotFoundError, UnreadableFile) as error:
            found = f"and it is lost: {error}"
        self.remove(spooled)
        return found

    def _check_room(self, step: int, size: int, trouble: Exception | None) -> None:
        held = [*self.pending.list(), *self.refused.list()]
        used = sum(each.bytes for each in held)
        if used + size > self.limit_bytes:
            raise SpoolFull(
                f"'{self.folder}' holds {used} bytes of {len(held)} checkpoints that the store has "
                f"not taken, and {self.limit_bytes} is the limit: the checkpoint of step {step} "
                f"({size} bytes) was not saved. "
                + (f"The store says: {trouble}" if trouble else "Save less often.")
            )

    def _same(
        self,
        step: int,
        files: Mapping[str, Path],
        details: dict[str, Any],
        known: Mapping[str, StoredFile],
    ) -> StoredCheckpoint:
        """Return what waits for `step` if it is the same, as for `Store.put`."""
        new = {name: known.get(name) or measured(Path(path)) for name, path in files.items()}
        for each in self.waiting():
            there = each.checkpoint
            if is_same(there, StoredCheckpoint(step, new, details), files):
                return there
        raise CheckpointExists(
            f"Another checkpoint of step {step} waits in '{self.folder}'; it was not touched. "
            "Delete it first."
        )

    def _spooled(self, wrapped: StoredCheckpoint) -> Spooled:
        record = wrapped.details
        lease = record["lease"]
        folder = self.pending.root / folder_name(wrapped.step)
        return Spooled(
            number=int(record["number"]),
            checkpoint=replace(wrapped, details=record["details"]),
            lease=None if lease is None else Lease(str(lease[0]), int(lease[1])),
            paths={name: folder / name for name in wrapped.files},
        )

    @contextmanager
    def _saving(self) -> Iterator[None]:
        lock = FileLock(self.folder / "saving", thread_local=False, mode=0o666)
        with lock.acquire(poll_interval=_POLL):
            yield
