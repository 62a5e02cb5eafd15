"""A checkpoint of a training run: one whole training state, as the file that its store keeps.

A run directory's `checkpoints` is a local store (see `stores.local`); what the sidecar of a
training state says in its details:

    {"epoch": 4, "samples": 7680, "world_size": 2, "metrics": {"val_loss": 0.21},
     "model": {"type": "Net", …}}

The newest is the one of the highest step, never the one with a particular name.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .stores.local import LocalStore
from .stores.sidecar import folder_name
from .stores.store import StoredCheckpoint

FILE = "model.ckpt"
"""What the file of a training state is called in a store."""


@dataclass(frozen=True)
class Checkpoint:
    """One whole training state.

    `step` counts optimizer steps done, `epoch` whole epochs done, `samples` samples seen over
    all ranks since the beginning (None where the data does not tell), `bytes` the file's size;
    `model` is the typed-model record.
    """

    path: Path
    step: int
    epoch: int = 0
    samples: int | None = None
    world_size: int | None = None
    bytes: int = 0
    checksum: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)


def described(stored: StoredCheckpoint, path: Path) -> Checkpoint:
    """Return what a store says of a training state whose file is here as `path`."""
    details = stored.details
    file = stored.files.get(FILE) or next(iter(stored.files.values()))
    return Checkpoint(
        path=path,
        step=stored.step,
        epoch=int(details.get("epoch") or 0),
        samples=details.get("samples"),
        world_size=details.get("world_size"),
        bytes=file.bytes,
        checksum=file.checksum,
        metrics=dict(details.get("metrics") or {}),
        model=dict(details.get("model") or {}),
    )


def list_checkpoints(directory: Path) -> list[Checkpoint]:
    """Return the checkpoints of a run whose sidecar and sizes hold, oldest step first."""
    if not directory.is_dir():
        return []
    return [described(stored, _path(directory, stored)) for stored in LocalStore(directory).list()]


def newest_valid(directory: Path) -> Checkpoint | None:
    """Return the newest checkpoint of a run whose checksum holds, or None.

    One that does not hold is passed over for the next older one, with a warning that says why.
    """
    stored = LocalStore(directory).newest_valid() if directory.is_dir() else None
    if stored is None:
        return None
    return described(stored, _path(directory, stored))


def _path(directory: Path, stored: StoredCheckpoint) -> Path:
    """Return the file of a training state; the folder of a script's, if it has several files."""
    folder = directory / folder_name(stored.step)
    names = [FILE] if FILE in stored.files else list(stored.files)
    return folder / names[0] if len(names) == 1 else folder
