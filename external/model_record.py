"""The typed-model record: which class a saved model is, and what is needed to find it again.

It lies beside the model under curifactory's name for the metadata of a cached artifact
(`model.ckpt` -> `model_metadata.json`), in that metadata's free part:

    {"extra": {"schema": 1, "type": "Net", "module": "digits.models", "qualname": "Net",
     "hyperparameters": "checkpoint", "arguments": null, "torch": "2.13.0", "lightning": "2.6.6",
     "step": 240, "epoch": 8, "world_size": 2, "commit": "0f3c…", "bytes": 90210,
     "saved": "2026-11-21T10:00:00+00:00", "checksum": "xxh3:06b0…"}}

`hyperparameters` says where the constructor's arguments come from: `"checkpoint"` (the class calls
`save_hyperparameters`), `"arguments"` (they are in this record) or `"none"` (it takes none).
"""

import datetime
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .atomic import write_json
from .checkpoint import FILE
from .checksum import checksum
from .manifest import check_file
from .schema import UnreadableFile, check_schema
from .stores.sidecar import from_json, sidecar_name, step_of

SCHEMA = 1
CHECKPOINT_KEY = "curitorch_model"
"""Where a checkpoint file carries the record of its model, for when it is alone."""


def describe_model(
    model: object,
    *,
    arguments: Mapping[str, Any] | None = None,
    step: int | None = None,
    epoch: int | None = None,
    world_size: int | None = None,
    commit: str | None = None,
) -> dict[str, Any]:
    """Return the record of a LightningModule; `bytes` and `checksum` come when it is written.

    Args:
        model: The module itself, not a wrapper around it; its class if that is all there is.
        arguments: What its constructor was called with by name, as JSON can hold it; None if
            that is not known.
        step: Optimizer steps done.
        epoch: Whole epochs done.
        world_size: Processes that trained it.
        commit: The version of the code that trained it.
    """
    kind = model if isinstance(model, type) else type(model)
    if kind is not model and getattr(model, "hparams", None):
        origin = "checkpoint"
    else:
        origin = "arguments" if arguments else "none"
    return {
        "schema": SCHEMA,
        "type": kind.__name__,
        "module": kind.__module__,
        "qualname": kind.__qualname__,
        "hyperparameters": origin,
        "arguments": None if arguments is None else dict(arguments),
        "torch": _installed("torch"),
        "lightning": _installed("lightning"),
        "step": step,
        "epoch": epoch,
        "world_size": world_size,
        "commit": commit,
        "saved": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def metadata_path(model_path: Path) -> Path:
    """Return where the record of the model file `model_path` lies: `…/model_metadata.json`."""
    return model_path.with_name(model_path.name.removesuffix(".ckpt") + "_metadata.json")


def with_file(record: Mapping[str, Any], model_path: Path) -> dict[str, Any]:
    """Return `record` with the size and checksum of `model_path`, which is read once."""
    return {**record, "bytes": model_path.stat().st_size, "checksum": checksum(model_path)}


def write_model_record(model_path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Write the record of the whole file `model_path` beside it and return it as written."""
    whole = with_file(record, model_path)
    write_json(metadata_path(model_path), {"extra": whole})
    return whole


def read_model_record(model_path: Path) -> dict[str, Any] | None:
    """Return the record of a model file: from beside it, or from a checkpoint's sidecar.

    The file itself is not opened; see `check_model_file`.

    Returns:
        The record, or None if there is none (or only metadata that somebody else wrote).

    Raises:
        UnreadableFile: The record is torn, or a newer curitorch wrote it.
    """
    path = metadata_path(model_path)
    if path.is_file():
        try:
            metadata = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UnreadableFile(
                f"'{path}' is not whole JSON ({error}). It was torn or altered: delete it to go "
                "on without the record, or train again."
            ) from error
        record = metadata.get("extra") if isinstance(metadata, dict) else None
        if isinstance(record, dict) and {"schema", "module", "qualname"} <= record.keys():
            check_schema(record, where=f"'{path}'", newest=SCHEMA)
            return record
    folder = model_path.absolute().parent
    step = step_of(folder.name)
    if model_path.name == FILE and step is not None:
        sidecar = folder.parent / sidecar_name(step)
        try:
            stored = from_json(sidecar.read_bytes(), where=f"'{sidecar}'", step=step)
        except FileNotFoundError:
            return None
        record = stored.details.get("model")
        if record and FILE in stored.files:
            check_schema(record, where=f"'{sidecar}'", newest=SCHEMA)
            return {**record, **vars(stored.files[FILE])}
    return None


def check_model_file(model_path: Path, record: Mapping[str, Any], *, read: bool) -> None:
    """Check that `model_path` has the recorded size and, if `read`, the recorded checksum.

    A record that lacks them (of a checkpoint that carries its own) says nothing and passes.

    Raises:
        UnreadableFile: The file is missing, torn or altered, or the record of it is not one.
    """
    size, digest = record.get("bytes"), record.get("checksum")
    if size is None and digest is None:
        return
    if not isinstance(size, int) or not isinstance(digest, str):
        raise UnreadableFile(
            f"The record of '{model_path}' has bytes={size!r} and checksum={digest!r}, expected a "
            f"number and a text. It was altered: delete '{metadata_path(model_path)}' to go on."
        )
    check_file(model_path, size=size, digest=digest, read=read)


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
