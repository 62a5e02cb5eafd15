"""A model and its file: `load_model` gives back the class that was trained, `save_model` keeps it.

from curitorch.cachers import load_model
model = load_model("data/cache/digits_1f0a_train_run")  # a run directory, or a .ckpt file
"""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .atomic import whole_file
from .layout import Layout
from .model_class import ModelClassNotFound, check_class, find_class
from .model_file import open_model_file
from .model_record import (
    CHECKPOINT_KEY,
    SCHEMA,
    check_model_file,
    describe_model,
    read_model_record,
    write_model_record,
)
from .schema import check_schema

if TYPE_CHECKING:
    from lightning.fabric.utilities.types import _MAP_LOCATION_TYPE
    from lightning.pytorch import LightningModule

# Options of Lightning's load_from_checkpoint, which a constructor's arguments cannot be named like.
_RESERVED = {"checkpoint_path", "map_location", "hparams_file", "strict", "weights_only"}


class ModelDoesNotFit(ValueError):
    """The class was found, but it cannot be built from, or filled with, what was saved."""


def load_model(
    path: str | os.PathLike[str],
    *,
    model_class: "type[LightningModule] | None" = None,
    map_location: "_MAP_LOCATION_TYPE" = "cpu",
    trusted: bool = False,
    aliases: Mapping[str, str] | None = None,
) -> "LightningModule":
    """Load a saved model as an instance of the class that it was trained as.

    The file is checked against its recorded size and checksum, then the class is imported
    (see `find_class`), then Lightning's `load_from_checkpoint` builds it: like there, the model is
    in training mode; call `model.eval()` before predicting.

    Args:
        path: A checkpoint, or a run directory, whose final model is meant.
        model_class: The class to build instead of the recorded one.
        map_location: Where its tensors go, e.g. `"cuda:0"`.
        trusted: Whether code in the file may run, if it cannot be opened without.
        aliases: New places of renamed classes: `{"old.module:Old": "new.module:New"}`.

    Raises:
        FileNotFoundError: There is no such file.
        UnreadableFile: The file or its record is torn, altered, too new, or not a checkpoint.
        ModelClassNotFound: The recorded class cannot be imported, or none is recorded.
        UntrustedModel: The file needs `trusted=True`.
        ModelDoesNotFit: The class does not take the recorded arguments or weights.
    """
    file = model_file(Path(path))
    record = read_model_record(file)
    if record is not None:
        check_model_file(file, record, read=True)
    if model_class is not None:
        check_class(model_class, name=getattr(model_class, "__qualname__", repr(model_class)))
    elif record is not None:
        model_class = find_class(record, near=file, aliases=aliases)
    checkpoint, weights_only = open_model_file(file, trusted=trusted)
    if record is None:
        record = embedded_record(checkpoint, file)
    if model_class is None:
        if record is None:
            raise ModelClassNotFound(
                f"'{file}' does not say which class it is of: it has no record beside it and none "
                "inside. Pass the class as model_class=…"
            )
        model_class = find_class(record, near=file, aliases=aliases)
    return _build(model_class, file, checkpoint, record or {}, map_location, weights_only)


def save_model(model: "LightningModule", path: Path) -> dict[str, Any]:
    """Save a model as an ordinary Lightning checkpoint, with its typed-model record beside it.

    A Trainer may be attached or not: its step and epoch are kept, but neither it nor the optimizer,
    so that the file serves to use the model, not to go on training it. Sharded models (FSDP,
    DeepSpeed) are saved by `Trainer.save_checkpoint` instead.

    Returns:
        The record as written.

    Raises:
        ModelClassNotFound: It is not a LightningModule of `lightning.pytorch`.
        ModelDoesNotFit: Its hyperparameters cannot be pickled; nothing was changed.
    """
    import torch

    check_class(type(model), name=type(model).__qualname__)
    record = describe_model(model, step=model.global_step, epoch=model.current_epoch)
    checkpoint: dict[str, Any] = {
        "epoch": model.current_epoch,
        "global_step": model.global_step,
        "pytorch-lightning_version": record["lightning"],
        "state_dict": model.state_dict(),
        CHECKPOINT_KEY: record,
    }
    if model.hparams:  # as the checkpoint connector of Lightning's Trainer writes them
        if hasattr(model, "_hparams_name"):
            checkpoint[model.CHECKPOINT_HYPER_PARAMS_NAME] = model._hparams_name
        if isinstance(model.hparams, dict):
            checkpoint[model.CHECKPOINT_HYPER_PARAMS_KEY] = dict(model.hparams)
        else:  # OmegaConf's containers
            checkpoint[model.CHECKPOINT_HYPER_PARAMS_KEY] = model.hparams
            checkpoint[model.CHECKPOINT_HYPER_PARAMS_TYPE] = type(model.hparams)
    model.on_save_checkpoint(checkpoint)
    with whole_file(path) as temporary:
        try:
            # To a file, not to its path: torch writes a path's name, here a random one, into it.
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
        except (AttributeError, TypeError, ValueError, pickle.PicklingError) as error:
            raise ModelDoesNotFit(
                f"The model {record['type']!r} cannot be saved: {error}. Leave what cannot be "
                "pickled out of it: self.save_hyperparameters(ignore=[…])."
            ) from error
    return write_model_record(path, record)


def model_file(path: Path) -> Path:
    """Return the model's file that `path` means: itself, or the final model of a run directory.

    Raises:
        FileNotFoundError: There is none.
    """
    if path.is_dir():
        model = Layout(path).model
        if not model.is_file():
            raise FileNotFoundError(
                f"'{path}' is a directory without '{model.name}', expected a complete training run "
                "or the path of a checkpoint."
            )
        return model
    if not path.is_file():
        raise FileNotFoundError(f"There is no model '{path}' (seen from '{Path.cwd()}').")
    return path


def embedded_record(checkpoint: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    """Return the record that the checkpoint of `path` carries inside, or None.

    Raises:
        UnreadableFile: A newer curitorch wrote it.
    """
    record = checkpoint.get(CHECKPOINT_KEY)
    if not isinstance(record, dict):
        return None
    check_schema(record, where=f"the record in '{path}'", newest=SCHEMA)
    return record


def _build(
    model_class: "type[LightningModule]",
    path: Path,
    checkpoint: Mapping[str, Any],
    record: Mapping[str, Any],
    map_location: "_MAP_LOCATION_TYPE",
    weights_only: bool,
) -> "LightningModule":
    """Build the model; recorded arguments fill in for hyperparameters that were not saved."""
    name = f"{model_class.__module__}:{model_class.__qualname__}"
    saved = checkpoint.get(model_class.CHECKPOINT_HYPER_PARAMS_KEY) or {}
    whole = checkpoint.get(model_class.CHECKPOINT_HYPER_PARAMS_NAME)  # one argument holds them all
    arguments = {
        key: value
        for key, value in (record.get("arguments") or {}).items()
        if key not in saved and key != whole
    }
    if reserved := _RESERVED & arguments.keys():
        raise ModelDoesNotFit(
            f"The constructor of {name!r} takes {sorted(reserved)}, names that Lightning's "
            "load_from_checkpoint keeps for itself. Call self.save_hyperparameters() in it."
        )
    try:
        return model_class.load_from_checkpoint(
            path, map_location=map_location, weights_only=weights_only, **arguments
        )
    except (TypeError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "loading state_dict" not in str(error):
            raise  # no such device, say
        raise ModelDoesNotFit(
            f"'{path}' does not fit the class {name!r}: {error}. Was the class changed since, or "
            "does its constructor lack self.save_hyperparameters()? Pass what fits as "
            "model_class=…"
        ) from error
