"""A fit whose tensors lie in parts on all processes, into its store and out of it.

What of torch writes and reads the parts is imported only where there are any.
"""

import contextlib
from pathlib import Path
from typing import Any

import torch.distributed as dist

from ..state_files import REST
from ..stores.retention import Retention
from ..stores.store import Lease, Store, StoredCheckpoint, StoreError


def save_parts(
    store: Store,
    step: int,
    checkpoint: dict[str, Any],
    *,
    details: dict[str, Any],
    lease: Lease | None,
    retention: Retention,
    group: Any = None,
) -> StoredCheckpoint | None:
    """Save `checkpoint` by all processes, who all call this; rank 0 gets what it became.

    They talk in `group`, or else where they talk during the training.

    Raises:
        StoreError, OSError: It could not be written, on rank 0 or on all; what was there before
            is as it was.
    """
    from torch.distributed.checkpoint.api import CheckpointException

    from .sharded import put_shards, write_shards

    rank, processes = dist.get_rank(), dist.get_world_size()
    with contextlib.ExitStack() as stack:
        failure: OSError | None = None
        place: list[str | None] = [None]
        if rank == 0:
            try:
                place = [str(stack.enter_context(store.drafting()))]
            except OSError as error:
                failure = error
        dist.broadcast_object_list(place, 0, group=group)
        if failure is not None:
            raise failure
        if place[0] is None:
            return None
        folder = Path(place[0])
        try:
            write_shards(checkpoint, folder, rank=rank, group=group)
        except CheckpointException as error:
            reasons = "; ".join(f"rank {n}: {each[0]}" for n, each in error.failures.items())
            raise StoreError(f"The parts of a checkpoint were not written. {reasons}") from error
        dist.barrier(group=group)
        if rank != 0:
            return None
        stored = put_shards(store, step, folder, processes=processes, details=details, lease=lease)
        store.prune(retention, lease=lease)
        return stored


def read_parts(path: Path, *, mesh: Any, trusted: bool) -> dict[str, Any] | None:
    """Return the checkpoint in the folder `path`, or None if that is none in parts.

    The model's tensors are whole in every process; those of optimizers are divided over `mesh`.
    """
    if not (path / REST).is_file():
        return None
    from .sharded import read_shards

    return read_shards(path, mesh=mesh, whole=("state_dict",), weights_only=not trusted)
