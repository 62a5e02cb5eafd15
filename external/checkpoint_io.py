"""A Lightning CheckpointIO that writes a checkpoint straight to where it belongs, whole.

Lightning's own writes a second copy into the system's temporary directory first and leaves it
there when it is killed.
"""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH

from .atomic import whole_file


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes beside, fsyncs and renames; reads as Lightning does."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None
    ) -> None:
        """Save `checkpoint` as a torch zip file at `path`.

        Raises:
            OSError: It could not be written whole; what was at `path` is still there.
        """
        # To an open file: torch.save puts a path's name into the zip, and the temporary one is
        # random: equal states would not have equal bytes.
        with whole_file(Path(path)) as temporary, temporary.open("wb") as file:
            torch.save(checkpoint, file)
