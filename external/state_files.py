"""The files of a training state in a store: one, or the parts of several processes and a rest.

What the lean engine saves with strategy="fsdp2" is in parts until training ends (see
`adapter.sharded`); everything else is one file.
"""

from pathlib import Path

from .checkpoint import FILE
from .stores.known import check_known
from .stores.store import Store, StoredCheckpoint

REST = "rest.ckpt"
"""What the file is called that has all but the parts."""


def newest_state(store: Store, folder: Path) -> tuple[StoredCheckpoint, Path] | None:
    """Return the newest valid training state and where it is now; None if there is none.

    The path is that of its file, or of the folder with its parts.

    Args:
        store: Where to look.
        folder: Where copies go if they are needed.

    Raises:
        StoreError: A newer one is for another curitorch, or the store did not answer.
    """
    found = _newest(store, folder)
    check_known(store, None if found is None else found[0].step)
    return found


def fetch_parts(store: Store, stored: StoredCheckpoint, folder: Path) -> Path:
    """Return the folder with all files of a state in parts, each verified; perhaps the store's."""
    found = {store.fetch(stored, name, folder).parent for name in stored.files}
    return found.pop() if len(found) == 1 else folder


def _newest(store: Store, folder: Path) -> tuple[StoredCheckpoint, Path] | None:
    if not any(REST in each.files for each in store.list()):
        return store.fetch_newest_valid(FILE, folder)
    newest = store.newest_valid()
    if newest is None:
        return None
    if REST in newest.files:
        return newest, fetch_parts(store, newest, folder)
    return newest, store.fetch(newest, FILE, folder)


def whole_state(store: Store, stored: StoredCheckpoint, folder: Path) -> Path:
    """Return the path of a state as one file; one in parts is put together in `folder`."""
    if REST not in stored.files:
        return store.fetch(stored, FILE, folder)
    import torch

    from .adapter.sharded import read_shards

    path = folder / FILE
    # weights_only=False: it is this run's own
    torch.save(read_shards(fetch_parts(store, stored, folder), weights_only=False), path)
    return path
