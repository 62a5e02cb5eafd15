"""Where the paths lead that Lightning gives a checkpoint plugin: to files, or into a store.

In a store a checkpoint is known by its optimizer step, of which there is one state: a second path
at the same step (`last.ckpt` beside `epoch=3.ckpt`) stands for the same checkpoint.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from ..checkpoint import FILE
from ..model_record import CHECKPOINT_KEY
from . import single_file
from .saving.target import FileTarget, StoreTarget, Target
from .store import CheckpointExists, Store, StoredFile

DETAILS_KEY = "curitorch_checkpoint"
"""Where a checkpoint says what its sidecar is to say: epoch, samples, world_size, metrics."""


class Place(Protocol):
    """Translates paths for a target."""

    @property
    def target(self) -> Target:
        """What takes the checkpoints."""

    def request(self, checkpoint: Mapping[str, Any], path: str) -> dict[str, Any] | None:
        """Return what the target is asked to save `checkpoint`; None if `path` is there by now."""

    def settle(self) -> None:
        """Take note that what was requested last is durable."""

    def find(self, path: str) -> contextlib.AbstractContextManager[tuple[Path, StoredFile | None]]:
        """Give the file that `path` stands for, for as long as the context lasts.

        With what it is to be compared with when it is read: None if that is done, or it has no
        record.

        Raises:
            FileNotFoundError: There is none.
            UnreadableFile: It is torn or altered.
        """

    def remove(self, path: str) -> None:
        """Remove the checkpoint that `path` stands for; nothing happens if there is none."""


class Files:
    """Paths are files, each with its sidecar beside it."""

    def __init__(self) -> None:
        self.target: Target = FileTarget()

    def request(self, checkpoint: Mapping[str, Any], path: str) -> dict[str, Any]:
        """Save at `path`."""
        whole = str(local_path(path).absolute())
        return {"path": whole, "step": step_of(checkpoint), "details": details_of(checkpoint)}

    def settle(self) -> None:
        """A file that was overwritten is gone already."""

    @contextlib.contextmanager
    def find(self, path: str) -> Iterator[tuple[Path, StoredFile | None]]:
        """Find `path`, and its record if it has a sidecar: another program's file has none."""
        file = local_path(path)
        if not single_file.sidecar_path(file).is_file():
            yield file, None
        elif file.is_dir():
            single_file.verify(file)
            yield file, None
        else:
            yield file, single_file.read(file).files[single_file.NAME]

    def remove(self, path: str) -> None:
        """Remove the sidecar first, so that half of a checkpoint never counts."""
        single_file.remove(local_path(path))


class InStore:
    """Paths are names for the checkpoints of a store, which remembers each one's first.

    Args:
        store: Where checkpoints go.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.target: Target = StoreTarget(store)
        self._steps: dict[str, int] = {}
        self._overwritten: set[int] = set()
        self._began = False

    def request(self, checkpoint: Mapping[str, Any], path: str) -> dict[str, Any] | None:
        """Save as the checkpoint of its step; `path` is one more name if this process did.

        Raises:
            CheckpointExists: The store holds another history, which went further.
        """
        step = step_of(checkpoint)
        if not self._began:
            self._check_new(step)
            self._began = True
        known = step in self._steps.values()
        if self._steps.get(path, step) != step:
            self._overwritten.add(self._steps[path])
        self._steps[path] = step
        if known:
            return None
        return {
            "step": step,
            "name": FILE,
            "details": {**details_of(checkpoint), "path": path},
        }

    def settle(self) -> None:
        """Delete what has no name any more since a path was used again."""
        for step in self._overwritten - set(self._steps.values()):
            self.store.delete(step)
        self._overwritten.clear()

    @contextlib.contextmanager
    def find(self, path: str) -> Iterator[tuple[Path, StoredFile | None]]:
        """Fetch by this process's names, by the stored ones, or the newest for `last….ckpt`."""
        with tempfile.TemporaryDirectory(prefix="curitorch-") as folder:
            existing = self.store.list()
            name = Path(path).name
            found = [c for c in existing if c.step == self._steps.get(path)]
            found = found or [c for c in existing if c.details.get("path") == path]
            found = found or [c for c in existing if Path(c.details.get("path", "")).name == name]
            if found:
                yield self.store.fetch(found[-1], FILE, Path(folder)), None
                return
            # ModelCheckpoint's last.ckpt is by its definition what was saved last.
            newest = self.store.newest_valid() if name.startswith("last") else None
            if newest is None:
                names = ", ".join(repr(c.details.get("path", c.step)) for c in existing)
                raise FileNotFoundError(
                    f"The store has no checkpoint that was saved as {path!r}; it has "
                    f"{names or 'none'}."
                )
            yield self.store.fetch(newest, FILE, Path(folder)), None

    def remove(self, path: str) -> None:
        """Delete the checkpoint when none of this process's names stands for it any more."""
        step = self._steps.pop(path, None)
        if step is None:
            step = next((c.step for c in self.store.list() if c.details.get("path") == path), None)
        if step is not None and step not in self._steps.values():
            self.store.delete(step)

    def _check_new(self, step: int) -> None:
        newest = max((c.step for c in self.store.list()), default=-1)
        if newest >= step:
            raise CheckpointExists(
                f"The store has checkpoints up to step {newest}, but this training is at step "
                f"{step}: they are of another history. Go on from the newest, delete what is "
                "newer, or use another store."
            )


def local_path(path: str) -> Path:
    """Return `path` if it is one of this machine.

    Raises:
        ValueError: It is an address, such as `s3://…`.
    """
    if "://" in path:
        raise ValueError(
            f"The checkpoint path {path!r} is an address, expected a local path. Give the plugin a "
            "store instead: VerifiedCheckpointIO(open_store('s3', 'root=s3://bucket/job/'))."
        )
    return Path(path)


def step_of(checkpoint: Mapping[str, Any]) -> int:
    """Return the optimizer steps done, by what Lightning writes."""
    return int(checkpoint.get("global_step", 0))


def details_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a sidecar says of a Lightning checkpoint: epoch, metrics, model and so on."""
    return {
        "epoch": int(checkpoint.get("epoch", 0)),
        "samples": None,
        "world_size": None,
        "metrics": {},
        **checkpoint.get(DETAILS_KEY, {}),
        "model": dict(checkpoint.get(CHECKPOINT_KEY, {})),
    }
