"""Before an attempt: the directory that a script saves in holds what its newest checkpoint holds.

A script finds its own files again and goes on from them, as it does without us. That they are
those of a whole checkpoint, and the one that the steps are counted from, is seen to here.
"""

import os
import shutil
from pathlib import Path

from ..atomic import whole_file
from ..stores.known import check_known
from ..stores.store import Store, StoredCheckpoint


def restore(store: Store, folder: Path, *, aside: Path) -> int:
    """Bring `folder` to the newest valid checkpoint of `store`; returns its step, 0 without one.

    What was written after that checkpoint was taken, perhaps in part, is moved to `aside`. Nothing
    is touched where the store is empty: such a script takes care of its files by itself.

    Args:
        store: Where the script's uploads went.
        folder: Where the script saves; made if it is not there.
        aside: A directory for what cannot be trusted.

    Raises:
        StoreError: The store did not answer, or its newest checkpoint is for another curitorch.
        OSError: The disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = store.newest_valid()
    check_known(store, None if checkpoint is None else checkpoint.step)
    if checkpoint is None:
        return 0
    paths = _paths(checkpoint, folder)
    taken = float(checkpoint.details.get("time", 0.0))
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        if file not in paths.values() and file.stat().st_mtime > taken:
            target = aside / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(file, target)
    for directory, _, _ in os.walk(folder, topdown=False):
        if Path(directory) != folder and not any(Path(directory).iterdir()):
            Path(directory).rmdir()  # of a checkpoint that was moved away
    for name, path in paths.items():
        with whole_file(path) as temporary:
            shutil.copyfile(store.fetch(checkpoint, name, temporary.parent), temporary)
    return checkpoint.step


def _paths(checkpoint: StoredCheckpoint, folder: Path) -> dict[str, Path]:
    """Return where each file of the checkpoint lay, by its name in the store.

    Raises:
        ValueError: The sidecar names a place outside `folder`.
    """
    recorded = checkpoint.details.get("paths", {})
    paths = {name: folder / str(recorded.get(name, name)) for name in checkpoint.files}
    for path in paths.values():
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(
                f"The checkpoint of step {checkpoint.step} has a file for '{path}', which is not "
                f"in '{folder}'. Its sidecar was altered: delete this checkpoint."
            )
    return paths
