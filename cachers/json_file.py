"""Caching a dictionary, such as the metrics of an evaluation, as a JSON file that is whole."""

from collections.abc import Mapping
from typing import Any

from ..external.atomic import write_json
from .whole import WholeCacher, read_whole_json


class JsonFileCacher(WholeCacher):
    """Caches a dictionary of numbers, texts and lists; unlike curifactory's, never a torn file.

    Args:
        path_override: The file's path instead of the one that curifactory makes up.
        kwargs: Further options of curifactory's `Cacheable`.
    """

    file_extension = ".json"

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
        return read_whole_json(self.path)

    def save(self, obj: Mapping[str, object]) -> str:
        """Keep a dictionary; what in it JSON has no form for becomes text, as in curifactory."""
        write_json(self.path, obj)
        self.record_sizes()
        self.save_metadata()
        return str(self.path)
