"""Saving that does not wait for a store: into a local folder at once, from there in the background.

    store = SpoolingStore(TcpStore(…), Path("/scratch/spool"), limit_bytes=50 * 10**9)
    store.put(120, {"model.ckpt": path})    # returns when it is durable in the folder

    <folder>/pending/                 a `LocalStore` of what the store has not got yet
    <folder>/refused/                 what the store will never take: kept for people to look at
    <folder>/leases.json              see spool_leases.py

What is in the folder when a process dies is uploaded by the next one.
"""

import builtins
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..atomic import checksum, copy_or_link
from ..schema import UnreadableFile
from .local import LocalStore
from .retention import Retention
from .sidecar import folder_name
from .spool_leases import SpoolLeases
from .store import (
    CheckpointExists,
    Lease,
    LeaseLost,
    Store,
    StoredCheckpoint,
    StoredFile,
    StoreError,
    StoreUnreachable,
)

LONGEST_PAUSE = 60.0  # seconds between two tries


class SpoolFull(StoreError):
    """The store has not taken enough for another checkpoint to fit; nothing was saved."""


class SpoolingStore(Store):
    """Puts into `folder`, and from there, in order, into `store`, in a thread.

    Only `put` and `prune` do without the store; reading sees both places. That a step is taken by
    another checkpoint, or that a lease was lost, is known after the put: a warning says so, and
    with a lost lease the next `put` raises.

    Args:
        store: Where checkpoints go in the end; closed with this one.
        folder: For this job alone; made if it is not there.
        limit_bytes: What may lie in `folder` at most; a put beyond it raises `SpoolFull`.
        close_seconds: How long `close` waits for what is pending.

    Raises:
        StoreError: Another process uses `folder`.
    """

    def __init__(
        self, store: Store, folder: Path, *, limit_bytes: int, close_seconds: float = 60.0
    ) -> None:
        self.folder = Path(folder)
        self.limit_bytes = limit_bytes
        self.close_seconds = close_seconds
        self.error: Exception | None = None
        """Why the store does not take anything at the moment; None if it does."""
        self._store = store
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.folder / "lock", thread_local=False)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise StoreError(
                f"Another process spools into '{folder}'. Give each its own folder."
            ) from None
        self._spooled = LocalStore(self.folder / "pending")
        self._refused = LocalStore(self.folder / "refused")
        self._leases = SpoolLeases(self.folder / "leases.json")
        self._changed = threading.Condition()
        self._uploading: int | None = None
        self._unwanted: set[int] = set()
        self._lost: LeaseLost | None = None
        self._lost_token = 0
        self._last = max((_number(each) for each in self._spooled.list()), default=0)
        self._closing = self._stopped = False
        self._thread = threading.Thread(target=self._work, name="spool", daemon=True)
        self._thread.start()

    @property
    def pending(self) -> builtins.list[StoredCheckpoint]:
        """What the store has not got yet, oldest put first."""
        return [_unwrapped(each) for each in self._in_order()]

    def put(
        self,
        step: int,
        files: Mapping[str, Path],
        *,
        details: Mapping[str, Any] | None = None,
        lease: Lease | None = None,
    ) -> StoredCheckpoint:
        """Save into the folder, as `Store.put` says but for what the class does.

        Raises:
            SpoolFull: There is no room; the message says what the store's trouble is.
        """
        if self._lost is not None and lease is not None and lease.token <= self._lost_token:
            raise self._lost
        size = sum(Path(path).stat().st_size for path in files.values())
        with self._changed:
            if self._closing:
                raise StoreError("The store was closed. Open it again to put more.")
            held = [*self._spooled.list(), *self._refused.list()]
            used = sum(each.bytes for each in held)
            if used + size > self.limit_bytes:
                raise SpoolFull(
                    f"'{self.folder}' holds {used} bytes of {len(held)} checkpoints that the store "
                    f"has not taken, and {self.limit_bytes} is the limit: the checkpoint of step "
                    f"{step} ({size} bytes) was not saved. "
                    + (f"The store says: {self.error}" if self.error else "Save less often.")
                )
            number = self._last + 1
            wrapped = {
                "number": number,
                "details": dict(details or {}),
                "lease": None if lease is None else [lease.holder, lease.token],
            }
            try:
                put = self._spooled.put(step, files, details=wrapped)
            except CheckpointExists:
                return self._same(step, files, dict(details or {}))
            self._last = number
            self._changed.notify_all()
        return _unwrapped(put)

    def list(self) -> builtins.list[StoredCheckpoint]:
        """Return what exists here or in the store, lowest step first."""
        pending = {each.step: each for each in self.pending}
        stored = {each.step: each for each in self._store.list()}  # after: nothing is in neither
        return [each for _, each in sorted({**pending, **stored}.items())]

    def newest_valid(self) -> StoredCheckpoint | None:
        """Return the checkpoint of the highest step that is valid, or None.

        While the store does not answer, the newest pending one, with a warning.
        """
        try:
            return super().newest_valid()
        except StoreUnreachable as error:
            newest = self._spooled.newest_valid()
            if newest is None:
                raise
            warnings.warn(f"Only the spool was looked at: {error}", stacklevel=2)
            return _unwrapped(newest)

    def fetch(self, checkpoint: StoredCheckpoint, name: str, folder: Path) -> Path:
        """Return a local path of one file, verified."""
        spooled = self._find(checkpoint)
        if spooled is not None and name in spooled.files:
            with suppress(FileNotFoundError):  # uploaded meanwhile
                target = Path(folder) / name
                copy_or_link(self._spooled.fetch(spooled, name, folder), target)
                return target
        return self._store.fetch(checkpoint, name, folder)

    def verify(self, checkpoint: StoredCheckpoint) -> None:
        """Compare the checksums of all files, where they are."""
        spooled = self._find(checkpoint)
        if spooled is not None:
            try:
                return self._spooled.verify(spooled)
            except UnreadableFile:
                if self._find(checkpoint) is not None:
                    raise  # or else it was uploaded meanwhile
        return self._store.verify(checkpoint)

    def delete(self, step: int, *, lease: Lease | None = None) -> None:
        """Delete the checkpoint of `step` here and in the store."""
        with self._changed:
            if self._uploading == step:
                self._unwanted.add(step)
            self._spooled.delete(step)
        self._store.delete(step, lease=lease)

    def prune(self, retention: Retention, *, lease: Lease | None = None) -> builtins.list[int]:
        """Delete what `retention` does not keep; nothing, with a warning, without the store."""
        try:
            return super().prune(retention, lease=lease)
        except StoreUnreachable as error:
            warnings.warn(f"Nothing was pruned: {error}", stacklevel=2)
            return []

    @contextmanager
    def lease(self, holder: str) -> Iterator[Lease]:
        """Be the only writer. What an earlier lease of this folder spooled counts as this one's.

        Unless somebody else had the lease in between: then the store refuses it.
        """
        with self._store.lease(holder) as lease:
            self._leases.taken(lease)
            yield lease

    def flush(self, seconds: float) -> bool:
        """Wait until the store has everything; returns whether it has, after `seconds` at most."""
        with self._changed:
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._spooled.list(), seconds)

    def close(self) -> None:
        """Wait for what is pending, `close_seconds` at most, and close the store as well.

        A warning tells how many are still in the folder, for the next process.
        """
        with self._changed:
            self._closing = True
        self.flush(self.close_seconds)
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(1.0)
        left = self.pending
        if left:
            warnings.warn(
                f"{len(left)} checkpoints ({sum(each.bytes for each in left)} bytes) are in "
                f"'{self.folder}' and not in the store yet"
                + (f" ({self.error})" if self.error else "")
                + ". They are uploaded when it is opened again.",
                stacklevel=2,
            )
        self._store.close()
        if not self._thread.is_alive():  # or else it still works in the folder
            self._lock.release()

    def _work(self) -> None:
        failures = 0
        while (spooled := self._next()) is not None:
            try:
                self._upload_or_set_aside(spooled)
                failures, self.error = 0, None
            except Exception as error:
                failures += 1
                self.error = error
                if failures == 1:
                    self._warn(f"Checkpoints stay in '{self.folder}' for now: {error}")
            with self._changed:
                self._uploading = None
                self._unwanted.discard(spooled.step)
                self._changed.notify_all()
                if failures:
                    pause = min(LONGEST_PAUSE, 0.1 * 2**failures)
                    self._changed.wait_for(lambda: self._stopped, pause)

    def _next(self) -> StoredCheckpoint | None:
        """Return the oldest, waiting for one; None at the end."""
        with self._changed:
            while not self._stopped:
                waiting = self._in_order()
                if waiting:
                    self._uploading = waiting[0].step
                    return waiting[0]
                self._changed.wait()
        return None

    def _upload_or_set_aside(self, spooled: StoredCheckpoint) -> None:
        try:
            self._upload(spooled)
        except (CheckpointExists, LeaseLost, UnreadableFile, ValueError) as error:
            self._set_aside(spooled, error)

    def _upload(self, spooled: StoredCheckpoint) -> None:
        lease = self._leases.heir(_lease(spooled))
        details = _unwrapped(spooled).details
        put = self._store.put(spooled.step, self._paths(spooled), details=details, lease=lease)
        if put.files != spooled.files:
            self._store.delete(spooled.step, lease=lease)
            raise UnreadableFile(f"Step {spooled.step} was altered in '{self.folder}'.")
        with self._changed:
            unwanted = spooled.step in self._unwanted
        if unwanted:  # deleted while it was on its way
            self._store.delete(spooled.step, lease=lease)
        self._spooled.delete(spooled.step)

    def _set_aside(self, spooled: StoredCheckpoint, error: Exception) -> None:
        if isinstance(error, LeaseLost) and (lease := _lease(spooled)) is not None:
            self._lost, self._lost_token = error, max(self._lost_token, lease.token)
        with suppress(UnreadableFile):
            self._refused.delete(spooled.step)
            self._refused.put(
                spooled.step, self._paths(spooled), details=spooled.details, move=True
            )
        self._spooled.delete(spooled.step)
        self._warn(f"Step {spooled.step} was refused, it is in '{self._refused.root}': {error}")

    def _paths(self, spooled: StoredCheckpoint) -> dict[str, Path]:
        folder = self._spooled.root / folder_name(spooled.step)
        return {name: folder / name for name in spooled.files}

    def _warn(self, sentence: str) -> None:
        with suppress(Warning):  # where warnings are errors, the thread must go on
            warnings.warn(sentence, stacklevel=1)

    def _in_order(self) -> builtins.list[StoredCheckpoint]:
        return sorted(self._spooled.list(), key=_number)

    def _find(self, checkpoint: StoredCheckpoint) -> StoredCheckpoint | None:
        for each in self._spooled.list():
            if each.step == checkpoint.step and each.files == checkpoint.files:
                return each
        return None

    def _same(
        self, step: int, files: Mapping[str, Path], details: dict[str, Any]
    ) -> StoredCheckpoint:
        """Return the pending checkpoint of `step` if it is the same, as for `Store.put`."""
        new = {
            name: StoredFile(Path(path).stat().st_size, checksum(Path(path)))
            for name, path in files.items()
        }
        for each in self.pending:
            if each.step == step and each.files == new and each.details == details:
                return each
        raise CheckpointExists(
            f"Another checkpoint of step {step} waits in '{self.folder}'; it was not touched. "
            "Delete it first."
        )


def _number(spooled: StoredCheckpoint) -> int:
    return int(spooled.details["number"])


def _unwrapped(spooled: StoredCheckpoint) -> StoredCheckpoint:
    return replace(spooled, details=spooled.details["details"])


def _lease(spooled: StoredCheckpoint) -> Lease | None:
    record = spooled.details["lease"]
    return None if record is None else Lease(str(record[0]), int(record[1]))
