"""The checkpoints in a job's folder on the service's disk, to read; see job_folder.py."""

from pathlib import Path

from ...manifest import check_file
from ...schema import UnreadableFile
from ..local import LocalStore
from ..local.committed import BROKEN
from ..sidecar import OtherSchema, folder_name, from_json, sidecar_name, step_of
from ..store import StoredCheckpoint, check_name
from ..tcp.wire import Kind
from .refusal import Refusal


class JobCheckpoints:
    """Reads the checkpoints of the job in `folder`, which need not exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, step: int) -> StoredCheckpoint | None:
        """Return the checkpoint of `step`, None if there is none.

        Raises:
            UnreadableFile: Its sidecar is torn or altered, or the disk cannot read it.
        """
        where = f"'{self.folder.name}/{sidecar_name(step)}'"
        try:
            data = (self.folder / sidecar_name(step)).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno not in BROKEN:
                raise
            raise UnreadableFile(f"{where} cannot be read ({error.strerror}).") from error
        return from_json(data, where=where, step=step)

    def checkpoints(self) -> tuple[list[StoredCheckpoint], list[str]]:
        """Return the checkpoints, lowest step first, and what is wrong with the others."""
        found, unreadable = [], []
        for step in self.steps():
            try:
                checkpoint = self.read(step)
                for name, file in checkpoint.files.items() if checkpoint is not None else ():
                    path = self.folder / folder_name(step) / name
                    check_file(path, size=file.bytes, digest=file.checksum, read=False)
            except UnreadableFile as error:
                unreadable.append(str(error))
                continue
            if checkpoint is not None:
                found.append(checkpoint)
        return found, unreadable

    def unknown(self) -> dict[int, str]:
        """Return, by step, why only another curitorch can read a checkpoint."""
        found = {}
        for step in self.steps():
            try:
                self.read(step)
            except OtherSchema as error:
                found[step] = str(error)
            except UnreadableFile:
                continue  # none at all
        return found

    def steps(self) -> list[int]:
        """Return the steps that have a sidecar, lowest first."""
        if not self.folder.is_dir():
            return []
        names = [path.name for path in self.folder.iterdir() if path.suffix == ".json"]
        return sorted(step for name in names if (step := step_of(name)) is not None)

    def file(self, step: int, name: str) -> Path:
        """Return the path of a file of a checkpoint.

        Raises:
            Refusal: There is no such checkpoint, or it has no such file.
        """
        try:
            checkpoint = self.read(step)
        except UnreadableFile:
            checkpoint = None
        path = self.folder / folder_name(step) / check_name(name, what="File")
        if checkpoint is None or name not in checkpoint.files or not _is_own(path):
            raise Refusal(
                Kind.UNREADABLE,
                f"Step {step} of {self.folder.name!r} has no file {name!r}: it was deleted, or "
                "never there. List the checkpoints again.",
            )
        return path

    def verify(self, checkpoint: StoredCheckpoint) -> None:
        """Read all files of a checkpoint and compare their checksums.

        Raises:
            UnreadableFile: One is missing, torn or altered.
        """
        if not self.folder.is_dir():
            raise UnreadableFile(f"Job {self.folder.name!r} has no checkpoints.")
        self.store().verify(checkpoint)

    def stored_bytes(self) -> int:
        """Return the size of all checkpoints."""
        return sum(checkpoint.bytes for checkpoint in self.checkpoints()[0])

    def store(self) -> LocalStore:
        """Open the folder as a local store, which makes it and sweeps what dead writers left."""
        return LocalStore(self.folder)


def _is_own(path: Path) -> bool:
    """Return whether `path` is a file in its folder, not a link to elsewhere."""
    return path.is_file() and not path.is_symlink() and not path.parent.is_symlink()
