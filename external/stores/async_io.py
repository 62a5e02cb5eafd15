"""A Lightning CheckpointIO that stages a checkpoint and lets training go on while it is written."""

import warnings
from collections.abc import Mapping
from typing import Any

from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.utilities.types import _PATH

from .place import local_path
from .saving.background import BackgroundWriter
from .saving.owned import OptimizerWatch
from .saving.thread_writer import ThreadWriter
from .store import Store, StoredCheckpoint
from .verified_io import VerifiedCheckpointIO, refuse_options, save_with


class AsyncCheckpointIO(CheckpointIO):
    """For `Trainer(plugins=[…])`, in the place of Lightning's asynchronous plugin.

    Tensors are copied into reused memory before `save_checkpoint` returns, and written by a
    process of its own, which lives on when the trainer is killed. One save is under way at a time:
    the next one waits for it. A checkpoint that is to be removed goes only after every save that
    was asked for before is durable: with top-k the last good one is never the one that went.

    An error in the background is raised by the next save or load, or by `teardown`.

    Args:
        where: A store, a CheckpointIO or nothing, as `VerifiedCheckpointIO` takes it. A plugin
            with a format of its own writes in a thread of this process, which does not outlive it.
        deferred: Copy only what no optimizer owns before `save_checkpoint` returns, the rest
            during the next forward and backward pass, see `Saver`.

    Raises:
        ValueError: `deferred`, and `where` has a format of its own.
    """

    def __init__(
        self, where: "CheckpointIO | Store | None" = None, *, deferred: bool = False
    ) -> None:
        self.verified = VerifiedCheckpointIO(where)
        """The same without the background: reads and removes."""
        if deferred and self.verified.base is not None:
            raise ValueError(
                f"deferred=True is for torch files, but {type(self.verified.base).__name__} writes "
                "a format of its own. Leave it out."
            )
        self._watch = OptimizerWatch() if deferred else None
        self._writer: BackgroundWriter | ThreadWriter | None = None
        self._doomed: list[_PATH] = []

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None
    ) -> None:
        """Stage `checkpoint` and return; it becomes `path` soon, whole or not at all.

        Raises:
            OSError, StoreError: An earlier save failed.
            TypeError: `storage_options` is given, which torch files have none of.
        """
        self.wait()
        request: Mapping[str, Any] | None
        if self.verified.base is None:
            refuse_options(self, storage_options)
            request = self.verified.place.request(checkpoint, str(path))
        else:
            request = {"path": str(local_path(str(path))), "options": storage_options}
        if request is None:
            return
        if self._writer is None:
            self._writer = self._make_writer()
        self._writer.save(checkpoint, request, what=f"Saving '{path}'", then=self._durable)

    def load_checkpoint(
        self, path: _PATH, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load a checkpoint, when all that was saved is durable.

        Raises:
            OSError, StoreError: A save failed.
            UnreadableFile: It is torn or altered.
        """
        self.wait()
        return self.verified.load_checkpoint(path, map_location, weights_only)

    def remove_checkpoint(self, path: _PATH) -> None:
        """Remove a checkpoint once the save under way is durable; if that fails, `path` stays."""
        if self._writer is not None and self._writer.is_busy:
            self._doomed.append(path)
        else:
            self.verified.remove_checkpoint(path)

    def hold(self) -> None:
        """Return when every tensor may change, also where `deferred` is still copying."""
        if isinstance(self._writer, BackgroundWriter):
            self._writer.hold()

    def poll(self) -> None:
        """Take note of what became durable meanwhile, without waiting.

        Raises:
            OSError, StoreError: A save failed.
        """
        self._attend(block=False)

    def wait(self) -> None:
        """Wait until everything that was saved is durable, and what was removed is gone.

        Raises:
            OSError, StoreError: A save failed.
        """
        self._attend(block=True)

    def teardown(self) -> None:
        """Wait, and end the writer process; it starts again with the next save.

        Raises:
            OSError, StoreError: A save failed.
        """
        try:
            self.wait()
        finally:
            writer, self._writer = self._writer, None
            if writer is not None:
                writer.close()
            self.verified.teardown()

    def _make_writer(self) -> BackgroundWriter | ThreadWriter:
        base = self.verified.base
        if base is None:
            return BackgroundWriter(self.verified.place.target, watch=self._watch)

        def keep(state: Any, request: Mapping[str, Any]) -> StoredCheckpoint:
            return save_with(base, state, request["path"], request["options"])

        return ThreadWriter(keep)

    def _durable(self, stored: StoredCheckpoint) -> None:
        self.verified.place.settle()
        doomed, self._doomed = self._doomed, []
        for path in doomed:
            self.verified.remove_checkpoint(path)

    def _attend(self, *, block: bool) -> None:
        if self._writer is None:
            return
        try:
            if block:
                self._writer.wait()
            else:
                self._writer.poll()
        except Exception:
            doomed, self._doomed = self._doomed, []
            if doomed:
                stay = ", ".join(map(str, doomed))
                warnings.warn(f"Not removed, as the save after failed: {stay}.", stacklevel=3)
            raise
