"""Caching a typed model: a LightningModule comes back as an instance of its own class."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..external.atomic import copy_or_link
from ..external.manifest import check_file
from ..external.model import embedded_record, load_model, model_file, save_model
from ..external.model_class import ModelClassNotFound, check_class
from ..external.model_file import UntrustedModel, open_model_file
from ..external.model_record import (
    check_model_file,
    describe_model,
    read_model_record,
    with_file,
)
from ..external.rundir import TrainingRun
from ..external.schema import UnreadableFile
from .training_run import read_complete
from .tree import copy_whole
from .whole import WholeCacher

if TYPE_CHECKING:
    from lightning.fabric.utilities.types import _MAP_LOCATION_TYPE
    from lightning.pytorch import LightningModule


class LightningModelCacher(WholeCacher):
    """Caches a LightningModule as an ordinary Lightning checkpoint with its class in the metadata.

    For a model that the stage holds in memory, and for one that a trainer wrote: pass
    `cacher.get_path()` to the trainer as `--model_path` and return that path (or None) from the
    stage, or return the `TrainingRun`. In a notebook:
    `LightningModelCacher("data/cache/…_model.ckpt").load()`.

    Args:
        path_override: The model's path instead of the one that curifactory makes up.
        model_class: The class to build instead of the recorded one.
        map_location: Where the tensors go when loaded, e.g. `"cuda:0"`.
        trusted: Whether code in the file may run, if it cannot be opened without.
        aliases: New places of renamed classes: `{"old.module:Old": "new.module:New"}`.
        kwargs: Further options of curifactory's `Cacheable`.
    """

    file_extension = ".ckpt"

    def __init__(
        self,
        path_override: str | os.PathLike[str] | None = None,
        *,
        model_class: "type[LightningModule] | None" = None,
        map_location: "_MAP_LOCATION_TYPE" = "cpu",
        trusted: bool = False,
        aliases: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(path_override, **kwargs)
        self.model_class = model_class
        self.map_location = map_location
        self.trusted = trusted
        self.aliases = aliases

    def verify(self) -> None:
        """Check that the file has the size that was recorded when it was whole.

        Raises:
            UnreadableFile: It has another size, or none was recorded: it may be torn.
        """
        recorded = self.recorded()
        if not isinstance(recorded.get("bytes"), int):
            raise UnreadableFile(f"'{self.path}' has no record that says how long it is.")
        check_file(self.path, size=recorded["bytes"], digest="", read=False)

    def load(self) -> "LightningModule":
        """Return the model as an instance of its class; see `load_model` for what it raises."""
        self.load_metadata()
        return load_model(
            self.path,
            model_class=self.model_class,
            map_location=self.map_location,
            trusted=self.trusted,
            aliases=self.aliases,
        )

    def save(self, obj: "LightningModule | TrainingRun | str | os.PathLike[str] | None") -> str:
        """Keep a model.

        Args:
            obj: A LightningModule, with a Trainer attached or not; a complete run, whose final
                model is taken; a trainer's file; or None if the trainer wrote to `get_path()`.

        Raises:
            FileNotFoundError: There is no such file.
            UnreadableFile: The file is torn or not a Lightning checkpoint, or the run incomplete.
            TypeError: `obj` is something else.
        """
        path = self.path
        if obj is None or isinstance(obj, str | os.PathLike):
            record = self._take(model_file(path if obj is None else Path(obj)), path)
        elif isinstance(obj, TrainingRun):
            read_complete(obj.path)
            record = self._take(obj.model_path, path)
        else:
            try:
                check_class(type(obj), name=type(obj).__qualname__)
            except ModelClassNotFound as error:
                raise TypeError(
                    f"LightningModelCacher got {obj!r:.80}, expected a LightningModule, a "
                    f"TrainingRun, the path of a checkpoint or None: {error}"
                ) from error
            record = save_model(obj, path)
        self.extra_metadata.update(record)
        self.save_metadata()
        return str(path)

    def _take(self, source: Path, target: Path) -> dict[str, Any]:
        """Put a trainer's file in its place and return its record."""
        record = read_model_record(source)
        if record is not None:
            check_model_file(source, record, read=True)
        in_place = source.resolve() == target.resolve()
        if not in_place and record is not None:
            copy_or_link(source, target)  # we wrote it: it is replaced, never written to
        elif not in_place:
            copy_whole(source, target)
        if record is None:
            record = self._look_inside(target)
        return with_file(record, target)

    def _look_inside(self, path: Path) -> dict[str, Any]:
        """Return the record of a file without one beside it; empty if nobody knows its class."""
        try:
            checkpoint, _ = open_model_file(path, trusted=self.trusted)
        except UntrustedModel:  # whole, but what it says about itself cannot be read
            checkpoint = {}
        record = embedded_record(checkpoint, path)
        if record is not None or self.model_class is None:
            return record or {}
        known = self.model_class.CHECKPOINT_HYPER_PARAMS_KEY in checkpoint
        return {
            **describe_model(
                self.model_class, step=checkpoint.get("global_step"), epoch=checkpoint.get("epoch")
            ),
            "hyperparameters": "checkpoint" if known else "none",
        }
