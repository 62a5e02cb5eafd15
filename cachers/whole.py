"""The base of our cachers: an artifact counts as cached only if it is whole."""

import json
import logging
import os
from pathlib import Path
from typing import Any

from ..external.atomic import write_json
from ..external.schema import UnreadableFile
from ..params.curifactory_api import Cacheable
from .reportables import drop_torn_reportables
from .tree import check_sizes, sizes


class WholeCacher(Cacheable):
    """A cacher whose metadata appears whole and whose `check` takes nothing torn for cached.

    To build on it, write `load` and `save` as for any curifactory cacher. In `save` write through
    `curitorch.external.atomic.whole_file`, then call `record_sizes` and `save_metadata`, so that
    it works without a stage as well; override `verify` where whole means more than sizes.

    Args:
        path_override: The artifact's path instead of the one that curifactory makes up.
        kwargs: Further options of curifactory's `Cacheable`.
    """

    file_extension: str | None = None
    """Of the artifact's file; None for a directory. `extension=` takes its place."""
    reports_again = False
    """Whether a stage that runs again keeps the artifact and reports it: so for a torn report."""

    def __init__(self, path_override: str | os.PathLike[str] | None = None, **kwargs: Any) -> None:
        if path_override is not None:
            # Metadata lies beside a directory: "run/" would put it inside.
            path_override = os.fspath(path_override).rstrip("/") or "/"
        if self.file_extension is not None:
            kwargs.setdefault("extension", self.file_extension)
        super().__init__(path_override, **kwargs)

    @property
    def path(self) -> Path:
        """Where the artifact is, or will be."""
        return Path(self.get_path())

    def check(self) -> bool:
        """Return whether the artifact is cached: there, not to be overwritten, and whole."""
        if not super().check():
            return False
        try:
            self.verify()
        except (UnreadableFile, OSError) as error:
            # The root logger, as curifactory does: a manager disables all others.
            logging.getLogger().info("Not taken for cached: %s", error)
            return False
        torn = self.record is not None and drop_torn_reportables(self.record)
        return not (torn and self.reports_again)

    def verify(self) -> None:
        """Check that the artifact is whole as far as that goes without reading all of it.

        Raises:
            UnreadableFile: Its metadata is torn, or its files do not have their recorded sizes.
            OSError: A file of it is missing or cannot be looked at.
        """
        recorded = self.recorded().get("files")
        if recorded is not None:
            check_sizes(self.path, recorded)

    def record_sizes(self) -> None:
        """Note the sizes of all files of the artifact, which `verify` compares from now on."""
        self.extra_metadata["files"] = sizes(self.path)

    def recorded(self) -> dict[str, Any]:
        """Return what `save` recorded about the artifact; nothing of it if there is no metadata.

        Raises:
            UnreadableFile: The metadata is torn.
        """
        metadata = self._read_metadata()
        return {} if metadata is None else dict(metadata["extra"])

    def save_metadata(self) -> None:
        """Write the metadata beside the artifact; readers see all of it or what was there."""
        if self.metadata is None:  # used without a stage
            record: dict[str, Any] = {"extra": self.extra_metadata}
        else:
            self.metadata["extra"].update(self.extra_metadata)
            record = self.metadata
        write_json(Path(self.get_path("_metadata.json")), record)

    def load_metadata(self) -> dict[str, Any]:
        """Read the metadata into this cacher; torn metadata is none, with a warning."""
        try:
            metadata = self._read_metadata()
        except UnreadableFile as error:
            logging.getLogger().warning("Went on without metadata: %s", error)
            metadata = None
        if metadata is not None:
            self.metadata = metadata
            self.extra_metadata = metadata["extra"]
        return self.metadata or {}

    def _read_metadata(self) -> dict[str, Any] | None:
        path = Path(self.get_path("_metadata.json"))
        try:
            metadata = read_whole_json(path)
        except FileNotFoundError:
            return None
        if not isinstance(metadata, dict) or not isinstance(metadata.get("extra"), dict):
            raise UnreadableFile(f"'{path}' is not the metadata of an artifact: no 'extra' in it.")
        return metadata


def read_whole_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        FileNotFoundError: There is none.
        UnreadableFile: It is torn.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise UnreadableFile(
            f"'{path}' is not whole JSON ({error}). It was torn or altered: run the stage again."
        ) from error
