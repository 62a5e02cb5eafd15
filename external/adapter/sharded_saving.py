"""A fit whose tensors lie in parts on all processes, into its store and out of it.

What of torch writes and reads the parts is imported only where there are any.
"""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist

from ..state_files import REST
from ..stores.retention import Retention
from ..stores.saving.thread_writer import ThreadWriter
from ..stores.store import Lease, Store, StoredCheckpoint, StoreError


class PartsSaver:
    """Saves as `Saver` does, but every process its own parts, and each makes the same calls.

    Args:
        store: Where checkpoints go.
        asynchronous: `save` returns once the parts are copied; a thread of each process writes
            them, and these talk in a group of their own while training goes on in another. What
            is under way is lost when a process is killed; the checkpoints before are not.
        lease: The right to write to the store, on rank 0.
        retention: What stays once a newer checkpoint is durable and verified.
    """

    def __init__(
        self, store: Store, *, asynchronous: bool, lease: Lease | None, retention: Retention
    ) -> None:
        self._store, self._lease, self._retention = store, lease, retention
        self._asynchronous = asynchronous
        self._thread: ThreadWriter | None = None
        self._group: Any = None

    def save(
        self,
        step: int,
        checkpoint: dict[str, Any],
        *,
        details: dict[str, Any],
        then: Callable[[StoredCheckpoint], None],
        group: Any = None,
    ) -> None:
        """Save `checkpoint`, which may change when the call returns; no other save is under way.

        Args:
            step: Optimizer steps done.
            checkpoint: The same in every process but for its parts.
            details: For the sidecar.
            then: Called on rank 0 when it is durable: at once, or by a later call.
            group: Where all processes talk, and write at once; None: where training does.

        Raises:
            StoreError, OSError: It could not be written, on rank 0 or on all; what was there
                before is as it was.
        """
        from .sharded import divided

        parts, rest = divided(checkpoint, rank=dist.get_rank())
        request = {"step": step, "rest": rest, "details": details, "group": group}
        if not self._asynchronous or group is not None:
            _tell(then)(self._keep(parts, request))
            return
        if self._thread is None:
            self._thread, self._group = ThreadWriter(self._found), dist.new_group(backend="gloo")
        request["group"] = self._group
        self._thread.save(parts, request, what=f"Saving step {step}", then=_tell(then))

    def poll(self) -> None:
        """Take note of what is durable meanwhile, without waiting.

        Raises:
            OSError, StoreError: A save failed.
        """
        if self._thread is not None:
            self._thread.poll()

    def wait(self) -> None:
        """Wait until all is durable.

        Raises:
            OSError, StoreError: A save failed.
        """
        if self._thread is not None:
            self._thread.wait()

    def close(self) -> None:
        """Wait, and give memory and thread back; saving again begins anew.

        Raises:
            OSError, StoreError: A save failed.
        """
        thread, self._thread = self._thread, None
        if thread is not None:
            try:
                thread.close()
            finally:
                dist.destroy_process_group(self._group)

    def _found(self, parts: dict[str, Any], request: Mapping[str, Any]) -> Any:
        """As `_keep`, in a thread, where another process may be found to be gone."""
        try:
            return self._keep(parts, request)
        except RuntimeError as error:
            if isinstance(error, StoreError):
                raise
            step = request["step"]
            raise StoreError(f"The parts of step {step} were not written. {error}") from error

    def _keep(self, parts: dict[str, Any], request: Mapping[str, Any]) -> Any:
        """Write what `save` was given; returns the checkpoint on rank 0, None elsewhere."""
        from torch.distributed.checkpoint.api import CheckpointException

        from .sharded import put_shards, write_shards

        step, group = request["step"], request["group"]
        with contextlib.ExitStack() as stack:
            failure: OSError | None = None
            place: list[str | None] = [None]
            if dist.get_rank() == 0:
                try:
                    folder = stack.enter_context(self._store.drafting())
                    (folder / REST).write_bytes(request["rest"])
                    place = [str(folder)]
                except OSError as error:
                    failure = error
            try:
                dist.broadcast_object_list(place, 0, group=group)
                if failure is not None:
                    raise failure
                if place[0] is None:
                    return None
                write_shards(parts, Path(place[0]), group=group)
            except CheckpointException as error:
                reasons = "; ".join(f"rank {n}: {each[0]}" for n, each in error.failures.items())
                raise StoreError(f"The parts of step {step} were not written. {reasons}") from error
            if dist.get_rank() != 0:
                return None
            processes, lease = dist.get_world_size(), self._lease
            stored = put_shards(
                *(self._store, step, Path(place[0])),
                processes=processes,
                details=request["details"],
                lease=lease,
            )
            self._store.prune(self._retention, lease=lease)
            return stored


def _tell(then: Callable[[StoredCheckpoint], None]) -> Callable[[StoredCheckpoint | None], None]:
    """Return what calls `then` on the one rank that knows what became of a save."""
    return lambda stored: None if stored is None else then(stored)


def read_parts(path: Path, *, mesh: Any, trusted: bool) -> dict[str, Any] | None:
    """Return the checkpoint in the folder `path`, or None if that is none in parts.

    The model's tensors are whole in every process; those of optimizers are divided over `mesh`.
    """
    if not (path / REST).is_file():
        return None
    from .sharded import read_shards

    return read_shards(path, mesh=mesh, whole=("state_dict",), weights_only=not trusted)
