"""A Lightning CheckpointIO whose files appear whole, with a sidecar, and are checked when read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH

from ..atomic import whole_file
from ..checkpoint import DETAILS_KEY, commit_checkpoint, read_checkpoint, sidecar_path
from ..model_record import CHECKPOINT_KEY
from .torch_image import lay_out

SIDECAR_KEYS = ("global_step", "epoch", CHECKPOINT_KEY, DETAILS_KEY)
"""The entries of a checkpoint that its sidecar is made of; the last two may be missing."""


class VerifiedCheckpointIO(TorchCheckpointIO):
    """For `Trainer(plugins=[…])` and `Strategy(checkpoint_io=…)`, in the place of Lightning's own.

    A file is written beside, fsynced and renamed, straight to where it belongs: Lightning's own
    writes a second copy into the system's temporary directory and leaves it there when it is
    killed. Beside it goes a sidecar with its size and checksum, which `load_checkpoint` compares.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None
    ) -> None:
        """Save `checkpoint` as a torch file at `path`, durable on return.

        Raises:
            OSError: It could not be written whole; what was at `path` is still there.
            TypeError: `storage_options` is given, which this plugin has none of.
        """
        refuse_options(self, storage_options)
        target = Path(path)
        sidecar_path(target).unlink(missing_ok=True)  # of the file that was there
        image = lay_out(checkpoint)
        with whole_file(target) as temporary, temporary.open("wb") as file:
            digest = image.write_to(file)
        commit(checkpoint, target, size=image.size, digest=digest)

    def load_checkpoint(
        self, path: _PATH, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load a checkpoint; one with a sidecar only if its checksum holds.

        Raises:
            FileNotFoundError: There is no such file.
            UnreadableFile: It is torn or altered.
        """
        source = Path(path)
        if sidecar_path(source).is_file():
            read_checkpoint(source).verify()
        return super().load_checkpoint(path, map_location, weights_only)

    def remove_checkpoint(self, path: _PATH) -> None:
        """Remove a checkpoint: its sidecar first, so that half of one never counts."""
        sidecar_path(Path(path)).unlink(missing_ok=True)
        super().remove_checkpoint(path)


def refuse_options(plugin: object, storage_options: object) -> None:
    """Refuse `storage_options`, in the words of Lightning's plugin.

    Raises:
        TypeError: They are given.
    """
    if storage_options is not None:
        raise TypeError(
            "`Trainer.save_checkpoint(..., storage_options=...)` with `storage_options` arg is not "
            f"supported for `{type(plugin).__name__}`. Leave it out."
        )


def commit(
    checkpoint: Mapping[str, Any], path: Path, *, size: int | None = None, digest: str | None = None
) -> None:
    """Write the sidecar of the whole file `path`, by what the checkpoint says of itself."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    details = {
        "epoch": int(checkpoint.get("epoch", 0)),
        "samples": None,
        "world_size": torch.distributed.get_world_size() if distributed else 1,
        "metrics": {},
        **checkpoint.get(DETAILS_KEY, {}),
    }
    commit_checkpoint(
        path,
        step=int(checkpoint.get("global_step", 0)),
        model=dict(checkpoint.get(CHECKPOINT_KEY, {})),
        size=size,
        digest=digest,
        **details,
    )
