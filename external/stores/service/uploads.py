"""Uploads of a job: files that arrive piece by piece and are no checkpoint yet.

    <job>/uploads/<id>/files/model.ckpt
    <job>/uploads/<id>/upload.json
        {"schema": 1, "step": 120, "files": {"model.ckpt": 90210}, "lease": 7}

The record says beforehand how long each file will be: quotas are kept by it. Uploads outlive the
service: one that was killed finds them again, and the client goes on where the file ends. They do
not outlive their writer's lease: the next lease deletes them.
"""

import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from ...atomic import write_json
from ...checksum import kind_of
from ...schema import UnreadableFile, read_record
from ..measuring import measured
from ..store import StoredCheckpoint, StoredFile, check_name, check_step
from ..tcp.wire import Kind
from .refusal import Refusal

SCHEMA = 1
MOST_FILES = 1000
IDLE_SECONDS = 60.0
"""An upload that nothing was added to for so long makes room when the quota is used up."""

_ID = re.compile(r"[0-9a-f]{32}")
_Identity = tuple[int, int, int]


class Uploads:
    """The uploads of one job; its methods are called one at a time."""

    def __init__(self, job: Path) -> None:
        self.folder = job / "uploads"
        self._checksums: dict[Path, tuple[_Identity, str]] = {}

    def begin(
        self, upload: str, step: int, sizes: Mapping[str, int], lease: int | None = None
    ) -> None:
        """Make the folder of an upload; one that is there and means the same is gone on with.

        Args:
            upload: Its id.
            step: Of the checkpoint that it will be.
            sizes: Of all its files, in bytes.
            lease: The fencing token of its writer, None for one without a lease.

        Raises:
            Refusal: There is another upload of that id.
        """
        if (self._of(upload) / "upload.json").exists():
            if self.declared(upload) != (step, dict(sizes)):
                raise Refusal(Kind.BAD_REQUEST, f"Upload {upload!r} is another one. Use a new id.")
            return
        (self._of(upload) / "files").mkdir(parents=True, exist_ok=True)
        record = {"schema": SCHEMA, "step": step, "files": dict(sizes), "lease": lease}
        write_json(self._of(upload) / "upload.json", record)

    def declared(self, upload: str) -> tuple[int, dict[str, int]]:
        """Return the step of an upload and the sizes that its files will have.

        Raises:
            Refusal: There is no such upload (any more).
        """
        try:
            record = read_record(self._of(upload) / "upload.json", newest=SCHEMA)
            return parse_declaration(record)
        except (FileNotFoundError, UnreadableFile, ValueError) as error:
            raise Refusal(
                Kind.NO_UPLOAD,
                f"There is no upload {upload!r}: it was committed, given up, or idle for too long. "
                "Begin again.",
            ) from error

    def file(self, upload: str, name: str) -> Path:
        """Return where a file of an upload goes; it may not be there yet."""
        return self._of(upload) / "files" / check_name(name, what="File")

    def remember(self, path: Path, digest: str) -> None:
        """Keep the checksum that was computed while `path` was received."""
        self._checksums[path] = (_identity(path), digest)

    def check(self, upload: str, checkpoint: StoredCheckpoint) -> None:
        """Compare what arrived with what a sidecar says.

        Raises:
            Refusal: A file is missing, or has another size or checksum; that file is deleted, so
                that it can be sent again.
        """
        step, sizes = self.declared(upload)
        if step != checkpoint.step or sizes.keys() != checkpoint.files.keys():
            raise Refusal(
                Kind.BAD_REQUEST,
                f"The sidecar is of step {checkpoint.step} with {sorted(checkpoint.files)}, the "
                f"upload of step {step} with {sorted(sizes)}. They must be the same.",
            )
        for name, said in checkpoint.files.items():
            path = self.file(upload, name)
            if not path.exists():
                found = "is missing"
            elif (got := self._measured(path, kind_of(said.checksum))) != said:
                found = f"has {got.bytes} bytes and {got.checksum}"
                path.unlink()
            else:
                continue
            raise Refusal(
                Kind.CHECKSUM,
                f"File {name!r} {found}, the sidecar says {said.bytes} bytes and {said.checksum}. "
                "It changed on the way, or while it was sent: send it again.",
            )

    def drop(self, upload: str) -> None:
        """Forget an upload and its files; nothing happens if there is none."""
        for path in [path for path in self._checksums if self._of(upload) in path.parents]:
            del self._checksums[path]
        shutil.rmtree(self._of(upload), ignore_errors=True)

    def drop_idle(self, seconds: float) -> None:
        """Forget uploads that nothing was added to for `seconds`."""
        for upload in self.ids():
            times = [p.stat().st_mtime for p in self._of(upload).rglob("*") if p.exists()]
            if time.time() - max(times, default=0.0) > seconds:
                self.drop(upload)

    def drop_older(self, lease: int) -> None:
        """Forget uploads of writers whose lease is older than `lease`."""
        for upload in self.ids():
            try:
                record = read_record(self._of(upload) / "upload.json", newest=SCHEMA)
            except (FileNotFoundError, UnreadableFile):
                continue  # it goes when it is idle
            if isinstance(record.get("lease"), int) and record["lease"] < lease:
                self.drop(upload)

    def ids(self) -> list[str]:
        """Return the ids of the uploads that were begun."""
        if not self.folder.is_dir():
            return []
        return [path.name for path in self.folder.iterdir() if _ID.fullmatch(path.name)]

    def reserved(self, *, but: str) -> int:
        """Return the bytes that all uploads except one will have."""
        total = 0
        for upload in self.ids():
            if upload != but and (self._of(upload) / "upload.json").exists():
                total += sum(self.declared(upload)[1].values())
        return total

    def _of(self, upload: str) -> Path:
        if not _ID.fullmatch(upload):
            raise Refusal(
                Kind.BAD_REQUEST, f"{upload[:80]!r} is not an upload id. Use 32 hex digits."
            )
        return self.folder / upload

    def _measured(self, path: Path, kind: str) -> StoredFile:
        known = self._checksums.get(path)
        if known and known[0] == _identity(path) and kind_of(known[1]) == kind:
            return StoredFile(path.stat().st_size, known[1])
        return measured(path, kind=kind)  # another kind, or the service was restarted since


def parse_declaration(record: Mapping[str, object]) -> tuple[int, dict[str, int]]:
    """Return the step and the sizes that `{"step": 120, "files": {"model.ckpt": 90210}}` declares.

    Raises:
        ValueError: It is not like that.
    """
    step, files = record.get("step"), record.get("files")
    if not isinstance(files, dict) or not 0 < len(files) <= MOST_FILES:
        raise ValueError(f"'files' must be an object of 1 to {MOST_FILES} names and sizes.")
    for name, size in files.items():
        check_name(name, what="File")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**62:
            raise ValueError(f"The size of {name!r} must be a number of bytes, not {size!r}.")
    if not isinstance(step, int) or step >= 10**18:
        raise ValueError(f"'step' must be an integer below 10**18, not {step!r}.")
    return check_step(step), dict(files)


def _identity(path: Path) -> _Identity:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
