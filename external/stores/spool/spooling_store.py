"""Saving that does not wait for a store: into a local folder at once, from there in the background.

    store = SpoolingStore(TcpStore(…), Path("/scratch/spool"), limit_bytes=50 * 10**9)
    store.put(120, {"model.ckpt": path})    # returns when it is durable in the folder

What is in the folder when a process dies is uploaded by the next one.
"""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..retention import Retention
from ..store import Lease, Store, StoredCheckpoint, StoredFile, StoreError
from .entrance import SpoolEntrance
from .folder import SpoolFull
from .uploader import SpoolUploader

__all__ = ["SpoolFull", "SpoolingStore"]


class SpoolingStore(SpoolEntrance):
    """Puts into `folder`, and from there, in order, into `store`, in a thread.

    Only `put` and `prune` do without the store; reading sees both places. That a step is taken by
    another checkpoint, or that a lease was lost, is known after the put: a warning says so, and
    with a lost lease the next `put` raises. In another process, where it is unpickled, it puts into
    the same folder: this one uploads, for as long as it lives, then whoever opens it next.

    Args:
        store: Where checkpoints go in the end; closed with this one.
        folder: For this job alone; made if it is not there.
        limit_bytes: What may lie in `folder` at most; a put beyond it raises `SpoolFull`.
        close_seconds: How long `close` waits for what is pending.

    Raises:
        StoreError: Another process uploads from `folder`.
    """

    def __init__(
        self, store: Store, folder: Path, *, limit_bytes: int, close_seconds: float = 60.0
    ) -> None:
        super().__init__(store, folder, limit_bytes=limit_bytes)
        self.close_seconds = close_seconds
        self._closing = False
        self._lock = FileLock(self.folder / "lock", thread_local=False)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise StoreError(
                f"Another process spools into '{folder}'. Give each its own folder."
            ) from None
        self._uploader = SpoolUploader(self._folder, store)

    def __reduce__(self) -> tuple[Callable[[], Store], tuple[()]]:
        self._uploader.look_around()
        limit = self._folder.limit_bytes
        return partial(SpoolEntrance, self._store, self.folder, limit_bytes=limit), ()

    @property
    def error(self) -> Exception | None:
        """Why the store does not take anything at the moment; None if it does."""
        return self._uploader.error

    def put(
        self,
        step: int,
        files: Mapping[str, Path],
        *,
        details: Mapping[str, Any] | None = None,
        lease: Lease | None = None,
        move: bool = False,
        known: Mapping[str, StoredFile] | None = None,
    ) -> StoredCheckpoint:
        """Save into the folder, as `Store.put` says but for what the class does.

        Raises:
            SpoolFull: There is no room; the message says what the store's trouble is.
        """
        if self._closing:
            raise StoreError("The store was closed. Open it again to put more.")
        saved = super().put(step, files, details=details, lease=lease, move=move, known=known)
        self._uploader.wake()
        return saved

    def prune(self, retention: Retention, *, lease: Lease | None = None) -> list[int]:
        """Delete what `retention` does not keep; while something waits, once the store has it."""
        gone = super().prune(retention, lease=lease)
        self._uploader.wake()
        return gone

    def flush(self, seconds: float) -> bool:
        """Wait until the store has everything; returns whether it has, after `seconds` at most."""
        return self._uploader.flush(seconds)

    def close(self) -> None:
        """Wait for what is pending, `close_seconds` at most, and close the store as well.

        A warning tells how many are still in the folder, for the next process.
        """
        self._closing = True
        self.flush(self.close_seconds)
        ended = self._uploader.stop(1.0)
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
        if ended:  # or else it still works in the folder
            self._lock.release()

    def _trouble(self) -> Exception | None:
        return self.error
