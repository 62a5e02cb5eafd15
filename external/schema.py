"""The version number that every file format of ours carries, and the refusal of newer ones."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class UnreadableFile(ValueError):
    """A file of ours is torn, altered, or written by a newer curitorch; the message says which."""


class NewerSchema(UnreadableFile):
    """A newer curitorch wrote the file: nothing of it is lost, and nothing may replace it."""


def read_record(path: Path, *, newest: int) -> dict[str, Any]:
    """Read a JSON record whose `schema` is at most `newest`.

    Raises:
        FileNotFoundError: There is no such file.
        UnreadableFile: It is not a whole JSON object.
        NewerSchema: Its schema is newer than this curitorch.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (
        ValueError,
        RecursionError,
    ) as error:  # not JSON, not UTF-8, a number too long, too deep
        raise UnreadableFile(
            f"'{path}' is not whole JSON ({error}). It was torn or altered: delete it to go on."
        ) from error
    if not isinstance(record, dict):
        raise UnreadableFile(
            f"'{path}' holds a {type(record).__name__}, expected a JSON object. Delete it to go on."
        )
    check_schema(record, where=f"'{path}'", newest=newest)
    return record


def check_schema(record: Mapping[str, Any], *, where: str, newest: int) -> None:
    """Refuse a record that a newer curitorch wrote.

    Raises:
        UnreadableFile: `record["schema"]` is missing.
        NewerSchema: It is above `newest`.
    """
    schema = record.get("schema")
    if not isinstance(schema, int):
        raise UnreadableFile(f"{where} has no 'schema' number: it is not a file of curitorch.")
    if schema > newest:
        raise NewerSchema(
            f"{where} has schema {schema}, this curitorch reads up to {newest}. "
            "Upgrade it: pip install --upgrade curitorch."
        )
