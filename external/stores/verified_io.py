"""A Lightning CheckpointIO whose checkpoints appear whole, with a sidecar, checked when read."""

import inspect
from typing import Any

from lightning.fabric.plugins import CheckpointIO, TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch.plugins import AsyncCheckpointIO

from . import single_file
from .files.verified_load import load_verified
from .place import Files, InStore, Place, details_of, local_path, step_of
from .saving.torch_image import lay_out
from .store import Store, StoredCheckpoint


class VerifiedCheckpointIO(TorchCheckpointIO):
    """For `Trainer(plugins=[…])` and `Strategy(checkpoint_io=…)`, in the place of Lightning's own.

    A file is written beside, fsynced and renamed, straight to where it belongs: Lightning's own
    writes a second copy into the system's temporary directory and leaves it there when it is
    killed. Beside it goes a sidecar with its size and checksum, which `load_checkpoint` compares.

    Args:
        where: A store: paths are names for its checkpoints (see `place`), it is not closed here.
            Or a CheckpointIO with a format of its own, file or directory: it writes to a path
            beside, and what it wrote is checked and published like the others. Without it torch
            files at the paths that Lightning gives.
    """

    def __init__(self, where: "CheckpointIO | Store | None" = None) -> None:
        self.base: CheckpointIO | None = None
        self.place: Place = InStore(where) if isinstance(where, Store) else Files()
        ours = getattr(where, "verified", where)  # of an AsyncCheckpointIO of ours
        if isinstance(ours, VerifiedCheckpointIO):
            self.base, self.place = ours.base, ours.place
        else:
            self.base = _with_own_format(where)

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None
    ) -> None:
        """Save `checkpoint` as `path`, durable on return.

        Raises:
            OSError: It could not be written whole; what was at `path` is still there.
            StoreError: The store did not take it.
            TypeError: `storage_options` is given, which this plugin has none of.
        """
        if self.base is not None:
            save_with(self.base, checkpoint, path, storage_options)
            return
        refuse_options(self, storage_options)
        request = self.place.request(checkpoint, str(path))
        if request is not None:
            self.place.target.write(lay_out(checkpoint), request)
            self.place.settle()

    def load_checkpoint(
        self, path: _PATH, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load a checkpoint; one with a sidecar only if its checksum holds.

        Raises:
            FileNotFoundError: There is no such checkpoint.
            UnreadableFile: It is torn or altered.
        """
        options: dict[str, Any] = {"map_location": map_location, "weights_only": weights_only}
        with self.place.find(str(path)) as (file, recorded):
            loaded: dict[str, Any]
            if self.base is None:
                loaded = load_verified(file, recorded, **options)
                return loaded
            if recorded is not None:
                single_file.verify(file)
            known = inspect.signature(self.base.load_checkpoint).parameters
            loaded = self.base.load_checkpoint(
                path, **{name: value for name, value in options.items() if name in known}
            )
            return loaded

    def remove_checkpoint(self, path: _PATH) -> None:
        """Remove a checkpoint: its sidecar first, so that half of one never counts."""
        if self.base is None:
            self.place.remove(str(path))
            return
        single_file.sidecar_path(local_path(str(path))).unlink(missing_ok=True)
        self.base.remove_checkpoint(path)


def save_with(
    base: CheckpointIO, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None
) -> StoredCheckpoint:
    """Have `base` write beside `path`; check and publish what it wrote.

    Raises:
        OSError: It could not be written whole; what was at `path` is still there.
        TypeError: `base` wrote nothing where it was told to.
    """
    target = local_path(str(path)).absolute()
    with single_file.draft(target) as temporary:
        base.save_checkpoint(checkpoint, temporary, storage_options)
        if not temporary.exists():
            raise TypeError(
                f"{type(base).__qualname__} wrote nothing at the path that it was given, so that "
                "what it saves cannot be verified. Use it without VerifiedCheckpointIO."
            )
        single_file.make_durable(temporary)
        return single_file.publish(
            temporary,
            target,
            single_file.measure(temporary),
            step=step_of(checkpoint),
            details=details_of(checkpoint),
        )


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


def _with_own_format(where: "CheckpointIO | Store | None") -> CheckpointIO | None:
    """Return `where` if it is a plugin with a format of its own.

    Raises:
        TypeError: It is no plugin and no store, or returns before it has written.
    """
    if where is None or isinstance(where, Store) or type(where) is TorchCheckpointIO:
        return None
    if not isinstance(where, CheckpointIO):
        raise TypeError(
            f"{where!r} is no place for checkpoints, expected a store or a CheckpointIO."
        )
    if isinstance(where, AsyncCheckpointIO):
        raise TypeError(
            "Lightning's AsyncCheckpointIO writes in the background itself, so that what it saves "
            "cannot be verified. Give the plugin that it is wrapped around."
        )
    return where
