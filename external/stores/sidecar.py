"""The sidecar of a stored checkpoint: JSON that says what the checkpoint consists of.

    {"schema": 2, "step": 120, "details": {"epoch": 4},
     "files": {"model.ckpt": {"bytes": 90210, "checksum": "xxh3:06b0…"}}}

Every store keeps it as `step-00000120.json` and writes it last. A store whose writers each have a
folder of their own adds `"upload": "9f8a1c"`, the folder's name.
"""

import json
import re
from typing import Any, TypeVar

from ..checksum import UnknownChecksum, kind_of
from ..schema import UnreadableFile, check_schema
from .store import SCHEMA, StoredCheckpoint, StoredFile, check_name, check_step

_Kind = TypeVar("_Kind")

_STEP = re.compile(r"step-([0-9]{8}|[1-9][0-9]{8,})")  # one name for each step


class OtherSchema(UnreadableFile):
    """A sidecar is whole, but of another schema or with checksums of a kind that is unknown here.

    It is for another curitorch to judge.
    """


def folder_name(step: int) -> str:
    """Return what the checkpoint of `step` is called, e.g. `step-00000120`.

    Raises:
        ValueError: `step` is no integer of at least 0.
    """
    return f"step-{check_step(step):08d}"


def sidecar_name(step: int) -> str:
    """Return the name of the sidecar of `step`, e.g. `step-00000120.json`."""
    return folder_name(step) + ".json"


def step_of(name: str) -> int | None:
    """Return the step of the folder or sidecar `name`; None if it is called something else."""
    match = _STEP.fullmatch(name.removesuffix(".json"))
    return int(match[1]) if match and len(match[1]) < 20 else None  # no step is beyond 63 bits


def to_json(checkpoint: StoredCheckpoint) -> bytes:
    """Return the sidecar of `checkpoint`; the same bytes for the same checkpoint.

    Raises:
        TypeError: `details` holds what JSON has no form for.
        ValueError: A name is not safe, or `details` contains itself.
    """
    files = {
        check_name(name, what="File"): {"bytes": file.bytes, "checksum": file.checksum}
        for name, file in checkpoint.files.items()
    }
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "step": check_step(checkpoint.step),
        "files": files,
        "details": checkpoint.details,
    }
    if checkpoint.upload:
        record["upload"] = check_name(checkpoint.upload, what="Upload")
    # Through JSON first: keys that are numbers become words, which sort.
    return json.dumps(json.loads(json.dumps(record)), sort_keys=True).encode() + b"\n"


def from_json(data: bytes, *, where: str, step: int | None = None) -> StoredCheckpoint:
    """Return the checkpoint that a sidecar describes.

    Args:
        data: All of the sidecar.
        where: Names it in messages, e.g. its quoted path.
        step: The step that its name claims, if the content has to agree.

    Raises:
        OtherSchema: An older or newer curitorch wrote it.
        UnreadableFile: It is torn, altered or foreign.
    """
    try:
        record = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UnreadableFile(f"{where} is not whole JSON ({error}): torn or altered.") from error
    if not isinstance(record, dict):
        raise UnreadableFile(f"{where} holds a {type(record).__name__}, expected a JSON object.")
    try:
        check_schema(record, where=where, newest=SCHEMA)
    except UnreadableFile as error:
        raise OtherSchema(str(error)) if "schema" in record else error from None
    if record["schema"] != SCHEMA:
        raise OtherSchema(f"{where} has schema {record['schema']}, a store's sidecar {SCHEMA}.")
    try:
        checkpoint = StoredCheckpoint(
            step=check_step(record["step"]),
            files={check_name(n, what="File"): _file(e, where) for n, e in record["files"].items()},
            details=_kind(record["details"], dict),
            upload=check_name(record["upload"], what="Upload") if "upload" in record else "",
        )
    except UnknownChecksum as error:
        raise OtherSchema(str(error)) from None
    except UnreadableFile:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnreadableFile(f"{where} is not a sidecar of a store ({error!r}).") from error
    if not checkpoint.files:
        raise UnreadableFile(f"{where} names no files: a checkpoint has at least one.")
    if step is not None and checkpoint.step != step:
        raise UnreadableFile(
            f"{where} says step {checkpoint.step}, its name says {step}: it was altered or renamed."
        )
    return checkpoint


def _file(entry: dict[str, Any], where: str) -> StoredFile:
    size, checksum = _kind(entry["bytes"], int), _kind(entry["checksum"], str)
    if size < 0 or isinstance(size, bool):
        raise ValueError(f"{size!r} is not a size")
    kind_of(checksum, where=where)
    return StoredFile(bytes=size, checksum=checksum)


def _kind(value: object, kind: type[_Kind]) -> _Kind:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is not a {kind.__name__}")
    return value
