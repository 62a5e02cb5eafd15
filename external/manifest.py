"""The manifest of a run directory: `manifest.json`, written last, means that the run is complete.

    {"schema": 1, "completed": "2026-11-21T10:00:00+00:00", "step": 240, "epoch": 8, "attempts": 2,
     "files": {"model.ckpt": {"bytes": 90210, "checksum": "xxh3:06b0…"}, …}}

`files` names what may not change any more, by paths relative to the run directory.
"""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .atomic import write_json
from .checksum import checksum, matches
from .schema import NewerSchema, UnreadableFile, read_record

SCHEMA = 1
FILE_NAME = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """What a complete run directory holds.

    `files` maps relative paths to `{"bytes": int, "checksum": str}`; `step` counts optimizer
    steps, `epoch` whole epochs, `attempts` the launches that it took.
    """

    completed: str
    step: int
    epoch: int
    attempts: int
    files: dict[str, dict[str, Any]]


def write_manifest(
    run: Path, files: Iterable[Path], *, step: int, epoch: int, attempts: int
) -> Manifest:
    """Mark the run directory `run` as complete with `files` (paths inside it) as its content.

    Raises:
        FileNotFoundError: One of `files` is missing; nothing was written.
        ValueError: One of `files` lies outside `run`.
    """
    record = {
        path.resolve().relative_to(run.resolve()).as_posix(): {
            "bytes": path.stat().st_size,
            "checksum": checksum(path),
        }
        for path in files
    }
    manifest = Manifest(
        completed=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        step=step,
        epoch=epoch,
        attempts=attempts,
        files=record,
    )
    write_json(run / FILE_NAME, {"schema": SCHEMA, **vars(manifest)})
    return manifest


def read_manifest(run: Path, *, verify: bool = False) -> Manifest:
    """Read the manifest and check that every file that it names has its recorded size.

    Args:
        run: The run directory.
        verify: Compare the checksums as well, which reads every file once.

    Raises:
        FileNotFoundError: There is no manifest: the run is not complete.
        UnreadableFile: The manifest is torn, or a file that it names is missing or altered.
        NewerSchema: A newer curitorch wrote it.
    """
    record = read_record(run / FILE_NAME, newest=SCHEMA)
    try:
        manifest = Manifest(
            completed=str(record["completed"]),
            step=int(record["step"]),
            epoch=int(record["epoch"]),
            attempts=int(record["attempts"]),
            files={str(name): dict(entry) for name, entry in record["files"].items()},
        )
        for name, entry in manifest.files.items():
            check_file(run / name, size=int(entry["bytes"]), digest=entry["checksum"], read=verify)
    except (KeyError, TypeError, AttributeError) as error:
        raise UnreadableFile(
            f"'{run / FILE_NAME}' is not a manifest ({error!r}). Delete it to train again."
        ) from error
    return manifest


def check_file(path: Path, *, size: int, digest: str, read: bool) -> None:
    """Check that `path` has the recorded size and, if `read`, the recorded checksum.

    Raises:
        UnreadableFile: It is missing, torn or altered, or its record is; the message says which.
    """
    if not path.is_file():
        raise UnreadableFile(f"'{path}' is missing, but a record says that it has {size} bytes.")
    found = path.stat().st_size
    if found != size:
        raise UnreadableFile(f"'{path}' has {found} bytes, recorded are {size}: torn or altered.")
    if read and not matches(path, digest):
        raise UnreadableFile(f"'{path}' does not have its recorded checksum: it was altered.")


def is_complete(run: Path) -> bool:
    """Return whether `run` has a valid manifest, i.e. is a finished training run.

    Raises:
        NewerSchema: A newer curitorch finished it.
    """
    try:
        read_manifest(run)
    except NewerSchema:  # not to be trained again
        raise
    except (FileNotFoundError, NotADirectoryError, UnreadableFile):
        return False
    return True
