"""Caching a dataset: a directory or a file that a stage produced, kept whole."""

import os
from pathlib import Path
from typing import Any

from ..external.schema import UnreadableFile
from .tree import copy_whole, move_whole
from .whole import WholeCacher


class DatasetCacher(WholeCacher):
    """Caches a directory or file by its path; what is in it is the stage's business.

    The stage writes straight to `get_path()` and returns that path, or returns another path,
    which is copied into place. The sizes of all files are recorded, so that a dataset which was
    interrupted, or of which a file went missing, is made again. Pack millions of files into few.

    Args:
        path_override: The dataset's path instead of the one that curifactory makes up.
        move: Move what the stage returns into place instead of copying it.
        kwargs: Further options of curifactory's `Cacheable`, e.g. `extension=".npz"` for a file.
    """

    def __init__(
        self,
        path_override: str | os.PathLike[str] | None = None,
        *,
        move: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(path_override, **kwargs)
        self.move = move

    def verify(self) -> None:
        """Check that every file is there with its recorded size.

        Raises:
            UnreadableFile: One is not, or nothing was recorded: the dataset may be torn.
        """
        if "files" not in self.recorded():
            raise UnreadableFile(f"'{self.path}' has no recorded sizes: it was never finished.")
        super().verify()

    def load(self) -> Path:
        """Return the path of the dataset.

        Raises:
            UnreadableFile: A file of it is missing or torn, or it was never finished.
        """
        self.verify()
        self.load_metadata()
        return self.path

    def save(self, obj: str | os.PathLike[str]) -> str:
        """Keep a dataset: one that lies at `get_path()` as it is, another one as a copy.

        Raises:
            FileNotFoundError: There is nothing at `obj`.
            TypeError: `obj` is not a path.
        """
        if not isinstance(obj, str | os.PathLike):
            raise TypeError(
                f"DatasetCacher got {obj!r:.80}, expected the path of a directory or file. Write "
                "the dataset to record.stage_cachers[…].get_path() and return that path."
            )
        source = Path(obj)
        if not source.exists():
            raise FileNotFoundError(
                f"There is no dataset '{source}' (seen from '{Path.cwd()}'), which the stage "
                "returned. Return the path that was written to."
            )
        if source.resolve() != self.path.resolve():
            if self.move:
                move_whole(source, self.path)
            else:
                copy_whole(source, self.path)
        self.record_sizes()
        self.save_metadata()
        return str(self.path)
