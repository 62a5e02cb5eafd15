"""A store: where the checkpoints of one run are kept, with one promise for every place.

A checkpoint is one or more files and a sidecar. It exists when its sidecar does, which is written
last, and only if no other checkpoint of its step was there; it is valid when every file has the
size and checksum that the sidecar names. Readers never see a part of one.

    with open_store("local", "root=/data/ckpt") as store, store.lease("node-a") as lease:
        store.put(120, {"model.ckpt": path}, lease=lease, details={"epoch": 4})
        newest = store.newest_valid()
        path = store.fetch(newest, "model.ckpt", Path("/tmp/here"))
"""

import abc
import builtins
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from ..schema import UnreadableFile
from .retention import Retention

SCHEMA = 2

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=-]{0,199}")
"""What a file, a job or a holder may be called: nothing that could lead out of a store's root."""


class StoreError(RuntimeError):
    """A store did not do what was asked; the message says what it left as it was."""


class StoreUnreachable(StoreError):
    """The store did not answer; nothing was changed. Trying again later may help."""


class CheckpointExists(StoreError):
    """Another checkpoint of that step is there; it was not touched."""


class LeaseLost(StoreError):
    """Another writer holds the lease; nothing was written."""


@dataclass(frozen=True)
class StoredFile:
    """One file of a checkpoint: `bytes` long, `checksum` as in `xxh3:06b0…`."""

    bytes: int
    checksum: str


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint that exists; `details` is whatever its writer said about it.

    `upload` names the folder of its files in a store where each writer has one of its own.
    """

    step: int
    files: dict[str, StoredFile]
    details: dict[str, Any] = field(default_factory=dict)
    upload: str = field(default="", compare=False)

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(file.bytes for file in self.files.values())


@dataclass(frozen=True)
class Lease:
    """The right to write to a store; `token` grows with every lease, so that old ones are known."""

    holder: str
    token: int


class Store(abc.ABC):
    """Keeps the checkpoints of one run. Safe to use from several threads of one process.

    A store that is pickled is opened anew, with the same arguments, where it is unpickled: that is
    how the process that saves in the background gets it. One that holds what cannot be pickled
    (locks, connections) says how it is opened: `def __reduce__(self): return type(self), (…,)`.
    """

    @abc.abstractmethod
    def put(
        self,
        step: int,
        files: Mapping[str, Path],
        *,
        details: Mapping[str, Any] | None = None,
        lease: Lease | None = None,
        move: bool = False,
        known: Mapping[str, StoredFile] | None = None,
    ) -> StoredCheckpoint:
        """Store `files` (name to local path) as the checkpoint of `step`, durable on return.

        Args:
            step: Optimizer steps done; at least 0.
            files: What the checkpoint consists of; may be changed after the call returns.
            details: Plain JSON data for the sidecar.
            lease: From `lease()`, in this process or another, and good until there is a newer one
                even if its holder died; without one nothing keeps another writer away.
            move: The store may take the files over instead of copying them; what is left when the
                call returns is the caller's to remove.
            known: The size and checksum of files that their writer knows: they are not read for
                that alone, and compared where they are read anyway.

        Raises:
            CheckpointExists: There is a checkpoint of that step, valid, and it is not this one.
            LeaseLost: `lease` is no longer the newest.
            StoreUnreachable: The store did not answer; no checkpoint came to be.
            UnreadableFile: A file is not what `known` says.
            ValueError: A name could lead out of the store, or `step` is negative.
            OSError: A file cannot be read, or the disk is full.
        """

    @abc.abstractmethod
    def list(self) -> list[StoredCheckpoint]:
        """Return the checkpoints that exist, lowest step first; contents are not read."""

    @abc.abstractmethod
    def fetch(self, checkpoint: StoredCheckpoint, name: str, folder: Path) -> Path:
        """Return a local path of one file, verified; it may be the store's own: do not write to it.

        Args:
            checkpoint: From `list` or `newest_valid`.
            name: Of the file.
            folder: Where a copy goes if one is needed.

        Raises:
            UnreadableFile: The file is missing, torn or altered.
            StoreUnreachable: The store did not answer.
        """

    @abc.abstractmethod
    def verify(self, checkpoint: StoredCheckpoint) -> None:
        """Compare the checksums of all files, where they are.

        Raises:
            UnreadableFile: A file is missing, torn or altered.
        """

    @abc.abstractmethod
    def delete(self, step: int, *, lease: Lease | None = None) -> None:
        """Delete the checkpoint of `step`, sidecar first; nothing happens if there is none."""

    @abc.abstractmethod
    def lease(self, holder: str) -> AbstractContextManager[Lease]:
        """Be the only writer for as long as the context lasts, or the process lives.

        Raises:
            LeaseLost: Somebody else is; the message names them.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Finish what is under way and let go of connections; the store cannot be used after."""

    def newest_valid(self) -> StoredCheckpoint | None:
        """Return the checkpoint of the highest step that is valid, or None.

        One that is not is passed over for the next older one, with a warning that says why.
        """
        existing = self.list()
        while existing:
            checkpoint = existing.pop()
            try:
                self.verify(checkpoint)
                return checkpoint
            except UnreadableFile as error:
                now = self.list()
                if checkpoint not in now:  # deleted meanwhile, because there is a newer one
                    existing = now
                else:
                    warnings.warn(f"Passed over a checkpoint: {error}", stacklevel=2)
        return None

    def fetch_newest_valid(self, name: str, folder: Path) -> tuple[StoredCheckpoint, Path] | None:
        """Return the newest checkpoint whose file `name` is valid, and its path here; or None.

        As `newest_valid` and `fetch` in one, reading what is fetched only once; the checkpoint's
        other files are not looked at.
        """
        existing = self.list()
        while existing:
            checkpoint = existing.pop()
            try:
                return checkpoint, self.fetch(checkpoint, name, folder)
            except UnreadableFile as error:
                now = self.list()
                if checkpoint not in now:  # deleted meanwhile, because there is a newer one
                    existing = now
                else:
                    warnings.warn(f"Passed over a checkpoint: {error}", stacklevel=2)
        return None

    def unknown(self) -> dict[int, str]:
        """Return, by step, why only another curitorch can read a checkpoint that is there."""
        return {}

    @contextmanager
    def drafting(self) -> Iterator[Path]:
        """Yield a folder for files that are about to be put with `move`; it is gone at the end."""
        with TemporaryDirectory(prefix="curitorch-") as folder:
            yield Path(folder)

    def prune(self, retention: Retention, *, lease: Lease | None = None) -> builtins.list[int]:
        """Delete what `retention` does not keep; returns the steps that went.

        Nothing goes before a newer checkpoint is there and valid.
        """
        existing = self.list()
        kept = retention.keep(existing)
        gone = [c.step for c in existing if c.step not in kept]
        if gone and (newest := self.newest_valid()) is not None:
            gone = [step for step in gone if step < newest.step]
            for step in gone:
                self.delete(step, lease=lease)
            return gone
        return []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def check_name(name: str, *, what: str) -> str:
    """Return `name` if it can safely be a part of a path or an address.

    Raises:
        ValueError: It is empty, too long, or has characters that could lead elsewhere.
    """
    if not NAME.fullmatch(name) or ".." in name:
        raise ValueError(
            f"{what} {name!r} is not a safe name. Use letters, digits, '_', '-', '=' and single "
            "'.', 200 at most, beginning with a letter, digit or '_'."
        )
    return name


def check_step(step: int) -> int:
    """Return `step` if it can be one.

    Raises:
        ValueError: It is negative, beyond 63 bits, or no integer.
    """
    if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step < 2**63:
        raise ValueError(f"step {step!r} is not a number of steps. Use an integer of at least 0.")
    return step
