"""Caching a dictionary, such as the metrics of an evaluation, as a JSON file that is whole."""

import json
import os
from collections.abc import Mapping
from typing import Any

from ..external.atomic import write_json
from ..external.schema import UnreadableFile
from .whole import WholeCacher


class JsonFileCacher(WholeCacher):
    """Caches a dictionary of numbers, texts and lists; unlike curifactory's, never a torn file.

    Args:
        path_override: The file's path instead of the one that curifactory makes up.
        kwargs: Further options of curifactory's `Cacheable`.
    """

    def __init__(self, path_override: str | os.PathLike[str] | None = None, **kwargs: Any) -> None:
        super().__init__(path_override, **{"extension": ".json", **kwargs})

    def verify(self) -> None:
        """Check that the file can be read: curifactory's own cacher noted no size of it.

        Raises:
            UnreadableFile: It is torn, or its metadata is.
        """
        super().verify()
        self.load()

    def load(self) -> Any:
        """Return what was saved.

        Raises:
            UnreadableFile: The file is torn.
        """
        try:
            return json.loads(self.path.read_bytes())
        except ValueError as error:
            raise UnreadableFile(
                f"'{self.path}' is not whole JSON ({error}). It was torn or altered: run the stage "
                "again."
            ) from error

    def save(self, obj: Mapping[str, object]) -> str:
        """Keep a dictionary; what in it JSON has no form for becomes text, as in curifactory."""
        write_json(self.path, obj)
        self.record_sizes()
        self.save_metadata()
        return str(self.path)
