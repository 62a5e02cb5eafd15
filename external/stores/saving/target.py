"""Where a checkpoint goes: into a store, or to a file that the caller names.

A target is asked in the trainer, or pickled and asked in the process that writes (see `writer`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ..files.file_copy import copy_file
from ..retention import Retention
from ..single_file import draft, make_durable, publish
from ..store import Lease, Store, StoredCheckpoint, StoredFile
from .unchanged import Stretch


class Image(Protocol):
    """A file's content before it is written."""

    @property
    def size(self) -> int:
        """Bytes of the file."""

    def write_to(self, path: Path) -> StoredFile:
        """Write all of it to the new file `path`, durably."""

    def stretches(self, big: int) -> list[Stretch]:
        """Return what it consists of: storages of at least `big` bytes, and what is between."""


class Target(Protocol):
    """Takes whole checkpoints, one after the other; each is durable on return.

    What a request says is plain JSON data: the step, the sidecar's details, where to.

    Raises:
        OSError: It could not be written; what was there before is still there.
        StoreError: The store did not take it.
    """

    def keep(self, source: Path, request: Mapping[str, Any]) -> StoredCheckpoint:
        """Keep a copy of the file `source` as `request` says."""

    def write(self, image: Image, request: Mapping[str, Any]) -> StoredCheckpoint:
        """Write `image`, without a copy of it in memory, as `request` says."""


class StoreTarget:
    """Puts into a store, and removes what its retention does not keep.

    Args:
        store: Where checkpoints go.
        lease: The right to write to it.
        retention: What stays; None keeps all.
    """

    def __init__(
        self, store: Store, *, lease: Lease | None = None, retention: Retention | None = None
    ) -> None:
        self.store = store
        self.lease = lease
        self.retention = retention

    def keep(self, source: Path, request: Mapping[str, Any]) -> StoredCheckpoint:
        """Put `source` as the file `request["name"]` of the checkpoint `request["step"]`."""
        stored = self.store.put(
            request["step"],
            {request["name"]: source},
            details=request["details"],
            lease=self.lease,
        )
        self._prune()
        return stored

    def write(self, image: Image, request: Mapping[str, Any]) -> StoredCheckpoint:
        """Put `image` as the file `request["name"]` of the checkpoint `request["step"]`."""
        name = request["name"]
        with self.store.drafting() as folder:
            path = folder / name
            known = {name: image.write_to(path)}
            stored = self.store.put(
                request["step"],
                {name: path},
                details=request["details"],
                lease=self.lease,
                move=True,
                known=known,
            )
        self._prune()
        return stored

    def _prune(self) -> None:
        if self.retention is not None:
            self.store.prune(self.retention, lease=self.lease)


class FileTarget:
    """Writes the file `request["path"]` and its sidecar, see `single_file`."""

    def keep(self, source: Path, request: Mapping[str, Any]) -> StoredCheckpoint:
        """Copy `source` beside its path, then give it the name."""
        with draft(Path(request["path"])) as temporary:
            return self._publish(temporary, copy_file(source, temporary), request)

    def write(self, image: Image, request: Mapping[str, Any]) -> StoredCheckpoint:
        """Write `image` beside its path, then give it the name."""
        with draft(Path(request["path"])) as temporary:
            return self._publish(temporary, image.write_to(temporary), request)

    def _publish(
        self, temporary: Path, written: StoredFile, request: Mapping[str, Any]
    ) -> StoredCheckpoint:
        make_durable(temporary)
        return publish(
            temporary,
            Path(request["path"]),
            written,
            step=request["step"],
            details=request["details"],
        )
