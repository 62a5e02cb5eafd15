"""A Lightning CheckpointIO that stages a checkpoint and lets training go on while it is written."""

import warnings
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO, TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH

from ..checkpoint import sidecar_path
from .background import BackgroundWriter, Written
from .verified_io import SIDECAR_KEYS, VerifiedCheckpointIO, commit, refuse_options


class AsyncCheckpointIO(CheckpointIO):
    """For `Trainer(plugins=[…])`, in the place of Lightning's asynchronous plugin.

    Tensors are copied into reused memory before `save_checkpoint` returns, and written by a
    process of its own, which lives on when the trainer is killed. One save is under way at a time:
    the next one waits for it. A checkpoint that is to be removed goes only after every save that
    was asked for before is durable: with top-k the last good one is never the one that went.

    An error in the background is raised by the next save or load, or by `teardown`.

    Args:
        base: Reads and removes, and says that its files are torch files:
            a `VerifiedCheckpointIO` without it.

    Raises:
        TypeError: `base` writes a format of its own, which the background does not know.
    """

    def __init__(self, base: CheckpointIO | None = None) -> None:
        self._base = base or VerifiedCheckpointIO()
        if not isinstance(self._base, TorchCheckpointIO):
            raise TypeError(
                f"{type(base).__qualname__} writes files of its own kind, but only torch files can "
                "be written in the background. Use it without AsyncCheckpointIO."
            )
        self._writer: BackgroundWriter | None = None
        self._doomed: list[_PATH] = []

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None
    ) -> None:
        """Stage `checkpoint` and return; it becomes the file `path` soon, whole or not at all.

        Raises:
            OSError: An earlier save failed.
            TypeError: `storage_options` is given, which this plugin has none of.
        """
        refuse_options(self, storage_options)
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if self._writer is None:
            self._writer = BackgroundWriter()
        about = {name: checkpoint[name] for name in SIDECAR_KEYS if name in checkpoint}

        def durable(written: Written) -> None:
            commit(about, written.path, size=written.bytes, digest=written.checksum)
            doomed, self._doomed = self._doomed, []
            for old in doomed:
                self._base.remove_checkpoint(old)

        self.wait()
        sidecar_path(target).unlink(missing_ok=True)  # of the file that was there
        self._writer.save(checkpoint, target, then=durable)

    def load_checkpoint(
        self, path: _PATH, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load a checkpoint, when all that was saved is durable.

        Raises:
            OSError: A save failed.
        """
        self.wait()
        return self._base.load_checkpoint(path, map_location, weights_only)

    def remove_checkpoint(self, path: _PATH) -> None:
        """Remove a checkpoint once the save under way is durable; if that fails, `path` stays."""
        if self._writer is not None and self._writer.is_busy:
            self._doomed.append(path)
        else:
            self._base.remove_checkpoint(path)

    def poll(self) -> None:
        """Take note of what became durable meanwhile, without waiting.

        Raises:
            OSError: A save failed.
        """
        self._attend(block=False)

    def wait(self) -> None:
        """Wait until everything that was saved is durable, and what was removed is gone.

        Raises:
            OSError: A save failed.
        """
        self._attend(block=True)

    def _attend(self, *, block: bool) -> None:
        if self._writer is None:
            return
        try:
            if block:
                self._writer.wait()
            else:
                self._writer.poll()
        except OSError:
            doomed, self._doomed = self._doomed, []
            if doomed:
                stay = ", ".join(map(str, doomed))
                warnings.warn(f"Not removed, as the save after failed: {stay}.", stacklevel=3)
            raise

    def teardown(self) -> None:
        """Wait, and end the writer process; it starts again with the next save.

        Raises:
            OSError: A save failed.
        """
        try:
            self.wait()
        finally:
            writer, self._writer = self._writer, None
            if writer is not None:
                writer.close()
            self._base.teardown()
