"""A checkpoint on disk: `step-00000120.ckpt` and, written after it is whole, its JSON sidecar.

    {"schema": 1, "step": 120, "epoch": 4, "samples": 7680, "world_size": 2, "bytes": 90210,
     "checksum": "sha256:9f86…", "metrics": {"val_loss": 0.21}, "model": {"type": "Net", …}}

A checkpoint exists when its sidecar does and what the sidecar says holds. The newest is the one
with the highest recorded step, never the one with a particular name.
"""

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .atomic import checksum, write_json
from .manifest import check_file
from .schema import UnreadableFile, read_record

SCHEMA = 1
DETAILS_KEY = "curitorch_checkpoint"
"""Where a checkpoint file says what its sidecar is to say: epoch, samples, world_size, metrics."""


@dataclass(frozen=True)
class Checkpoint:
    """One whole training state.

    `step` counts optimizer steps done, `epoch` whole epochs done, `samples` samples seen over
    all ranks since the beginning (None where the data does not tell), `bytes` the file's size;
    `model` is the typed-model record.
    """

    path: Path
    step: int
    epoch: int
    samples: int | None
    world_size: int
    bytes: int
    checksum: str
    metrics: dict[str, float] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)

    def verify(self) -> None:
        """Read the whole file and compare its checksum.

        Raises:
            UnreadableFile: It is missing, torn or altered.
        """
        check_file(self.path, size=self.bytes, digest=self.checksum, read=True)


def checkpoint_path(directory: Path, step: int) -> Path:
    """Return the path of the checkpoint of optimizer step `step`."""
    return directory / f"step-{step:08d}.ckpt"


def sidecar_path(path: Path) -> Path:
    """Return the path of the sidecar of the checkpoint file `path`."""
    return path.with_suffix(".json")


def commit_checkpoint(
    path: Path,
    *,
    step: int,
    epoch: int,
    samples: int | None,
    world_size: int,
    metrics: dict[str, float],
    model: dict[str, Any],
    size: int | None = None,
    digest: str | None = None,
) -> Checkpoint:
    """Write the sidecar of the whole, durable file `path`: from then on the checkpoint exists.

    `size` and `digest` are known to who wrote the file; without them it is read.
    """
    checkpoint = Checkpoint(
        path=path,
        step=step,
        epoch=epoch,
        samples=samples,
        world_size=world_size,
        bytes=path.stat().st_size if size is None else size,
        checksum=checksum(path) if digest is None else digest,
        metrics=metrics,
        model=model,
    )
    record = {name: value for name, value in vars(checkpoint).items() if name != "path"}
    write_json(sidecar_path(path), {"schema": SCHEMA, **record})
    return checkpoint


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the sidecar of the checkpoint file `path` and check the file's size.

    Raises:
        FileNotFoundError: There is no sidecar: the checkpoint was never finished.
        UnreadableFile: The sidecar or the file is torn, altered or too new.
    """
    record = read_record(sidecar_path(path), newest=SCHEMA)
    try:
        checkpoint = Checkpoint(
            path=path,
            step=int(record["step"]),
            epoch=int(record["epoch"]),
            samples=None if record["samples"] is None else int(record["samples"]),
            world_size=int(record["world_size"]),
            bytes=int(record["bytes"]),
            checksum=str(record["checksum"]),
            metrics=dict(record["metrics"]),
            model=dict(record["model"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UnreadableFile(f"'{sidecar_path(path)}' is not a sidecar ({error!r}).") from error
    check_file(path, size=checkpoint.bytes, digest=checkpoint.checksum, read=False)
    return checkpoint


def list_checkpoints(directory: Path) -> list[Checkpoint]:
    """Return the checkpoints whose sidecar and size hold, oldest step first."""
    found = []
    for sidecar in directory.glob("*.json"):
        try:
            found.append(read_checkpoint(sidecar.with_suffix(".ckpt")))
        except (FileNotFoundError, UnreadableFile):
            continue  # torn or foreign: never a checkpoint
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def newest_valid(directory: Path) -> Checkpoint | None:
    """Return the newest checkpoint whose checksum holds, or None.

    One that does not hold is passed over for the next older one, with a warning that says why.
    """
    for checkpoint in reversed(list_checkpoints(directory)):
        try:
            checkpoint.verify()
        except UnreadableFile as error:
            warnings.warn(f"Passed over a checkpoint: {error}", stacklevel=2)
            continue
        return checkpoint
    return None


def prune(directory: Path, *, keep: int) -> None:
    """Delete all but the `keep` newest checkpoints; 0 keeps every one.

    The sidecar goes first, so that a checkpoint which is half deleted does not exist.
    """
    if keep == 0:
        return
    for checkpoint in list_checkpoints(directory)[:-keep]:
        sidecar_path(checkpoint.path).unlink(missing_ok=True)
        checkpoint.path.unlink(missing_ok=True)
