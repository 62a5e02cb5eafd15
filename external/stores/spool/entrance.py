"""The entrance of a spool: a store that puts into the folder, which a `SpoolingStore` empties.

It is what a `SpoolingStore` becomes in another process: several may put, one uploads.
"""

import builtins
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ...atomic import copy_or_link
from ...schema import UnreadableFile
from ..retention import Retention
from ..store import Lease, Store, StoredCheckpoint, StoredFile, StoreUnreachable
from .folder import SpoolFolder
from .pruning import PruneRequest


class SpoolEntrance(Store):
    """Puts into `folder`; reads there and in `store`.

    Args:
        store: Where checkpoints go in the end; closed with this one.
        folder: Of the spool.
        limit_bytes: What may lie in `folder` at most.
    """

    def __init__(self, store: Store, folder: Path, *, limit_bytes: int) -> None:
        self._store = store
        self._folder = SpoolFolder(Path(folder), limit_bytes)

    @property
    def folder(self) -> Path:
        """Where checkpoints wait."""
        return self._folder.folder

    @property
    def pending(self) -> builtins.list[StoredCheckpoint]:
        """What the store has not got yet, oldest put first."""
        return [each.checkpoint for each in self._folder.waiting()]

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
        """Save into the folder; that the store refuses it is known later.

        Raises:
            SpoolFull: There is no room; the message says what the store's trouble is.
            LeaseLost: The store has refused what was put under `lease` before.
        """
        return self._folder.save(
            step,
            files,
            details=details or {},
            lease=lease,
            move=move,
            known=known,
            trouble=self._trouble(),
        )

    def list(self) -> builtins.list[StoredCheckpoint]:
        """Return what exists here or in the store, lowest step first."""
        pending = {each.step: each for each in self.pending}
        stored = {each.step: each for each in self._store.list()}  # after: nothing is in neither
        return [each for _, each in sorted({**pending, **stored}.items())]

    def unknown(self) -> dict[int, str]:
        """Return, by step, why only another curitorch can read a checkpoint of the store."""
        return self._store.unknown()

    def newest_valid(self) -> StoredCheckpoint | None:
        """Return the checkpoint of the highest step that is valid, or None.

        While the store does not answer, the newest pending one, with a warning.
        """
        try:
            return super().newest_valid()
        except StoreUnreachable as error:
            for pending in self._newest_pending(error):
                with suppress(UnreadableFile):
                    self.verify(pending)
                    return pending
            raise

    def fetch_newest_valid(self, name: str, folder: Path) -> tuple[StoredCheckpoint, Path] | None:
        """Return the newest checkpoint whose file `name` is valid, and its path here; or None.

        While the store does not answer, the newest pending one, with a warning.
        """
        try:
            return super().fetch_newest_valid(name, folder)
        except StoreUnreachable as error:
            for pending in self._newest_pending(error):
                with suppress(UnreadableFile):
                    return pending, self.fetch(pending, name, folder)
            raise

    def fetch(self, checkpoint: StoredCheckpoint, name: str, folder: Path) -> Path:
        """Return a local path of one file, verified."""
        spooled = self._folder.find(checkpoint)
        if spooled is not None and name in spooled.files:
            target = Path(folder) / name
            try:
                copy_or_link(self._folder.pending.fetch(spooled, name, folder), target)
                return target
            except (FileNotFoundError, UnreadableFile):
                if self._folder.find(checkpoint) is not None:
                    raise  # or else it was uploaded meanwhile
        return self._store.fetch(checkpoint, name, folder)

    def verify(self, checkpoint: StoredCheckpoint) -> None:
        """Compare the checksums of all files, where they are."""
        spooled = self._folder.find(checkpoint)
        if spooled is not None:
            try:
                return self._folder.pending.verify(spooled)
            except UnreadableFile:
                if self._folder.find(checkpoint) is not None:
                    raise  # or else it was uploaded meanwhile
        return self._store.verify(checkpoint)

    def delete(self, step: int, *, lease: Lease | None = None) -> None:
        """Delete the checkpoint of `step` here and in the store."""
        self._folder.delete(step)
        self._store.delete(step, lease=lease)

    def prune(self, retention: Retention, *, lease: Lease | None = None) -> builtins.list[int]:
        """Delete what `retention` does not keep; while something waits, once the store has it.

        Returns:
            The steps that went at once.
        """
        if not self.pending:
            try:
                return super().prune(retention, lease=lease)
            except StoreUnreachable as error:
                warnings.warn(f"It is pruned later: {error}", stacklevel=2)
        self._folder.pruning.ask(PruneRequest(retention, lease))
        return []

    @contextmanager
    def lease(self, holder: str) -> Iterator[Lease]:
        """Be the only writer. What an earlier lease of this folder spooled counts as this one's.

        Unless somebody else had the lease in between: then the store refuses it.
        """
        with self._store.lease(holder) as lease:
            self._folder.leases.taken(lease)
            yield lease

    @contextmanager
    def drafting(self) -> Iterator[Path]:
        """Yield a folder on the spool's own file system."""
        with self._folder.pending.drafting() as folder:
            yield folder

    def close(self) -> None:
        """Close the store; what is pending stays."""
        self._store.close()

    def _newest_pending(self, error: StoreUnreachable) -> builtins.list[StoredCheckpoint]:
        """Return what is pending, highest step first, with a warning that this is not all."""
        pending = sorted(self.pending, key=lambda each: each.step, reverse=True)
        if pending:
            warnings.warn(f"Only the spool was looked at: {error}", stacklevel=3)
        return pending

    def _trouble(self) -> Exception | None:
        """Return why the store takes nothing, as far as is known here."""
        return None
