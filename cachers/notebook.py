"""Caching a notebook: an .ipynb that people open, run, edit and save where it lies."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..external.atomic import whole_file
from ..external.schema import UnreadableFile
from .whole import WholeCacher


class NotebookCacher(WholeCacher):
    """Caches a Jupyter notebook by its path; what people change in it is theirs.

    One that was run or edited stays cached. When its stage writes it anew, a notebook whose cells
    somebody edited is set aside first, as `…-edited-1.ipynb`; outputs alone are no edits.

    Args:
        path_override: The notebook's path instead of the one that curifactory makes up.
        kwargs: Further options of curifactory's `Cacheable`.
    """

    file_extension = ".ipynb"

    def verify(self) -> None:
        """Check that it is a notebook, whole, and about all that it was to be about.

        Raises:
            UnreadableFile: It is torn, something else, or was written while something was missing.
        """
        read_cells(self.path)
        if self.recorded().get("lacks"):
            raise UnreadableFile(
                f"'{self.path}' was written without {self.recorded()['lacks']}, which may be there "
                "by now. Run its stage again."
            )

    def load(self) -> Path:
        """Return the path of the notebook.

        Raises:
            UnreadableFile: It is torn, or something else.
        """
        read_cells(self.path)
        self.load_metadata()
        return self.path

    def write(self, notebook: Mapping[str, Any], *, lacks: Sequence[str] = ()) -> Path:
        """Write a notebook to its place, where it appears whole, and return its path.

        Args:
            notebook: As nbformat has it.
            lacks: What it ought to be about and is not; with any it is written anew next time.

        Raises:
            ValueError: It is not a valid notebook.
        """
        import nbformat

        nbformat.validate(notebook)
        self._set_aside()
        with whole_file(self.path) as temporary:
            temporary.write_text(json.dumps(notebook, indent=1) + "\n", encoding="utf-8")
        self.extra_metadata["cells"] = _digest(read_cells(self.path))
        self.extra_metadata["lacks"] = list(lacks)
        self.save_metadata()
        return self.path

    def save(self, obj: Mapping[str, Any] | str | os.PathLike[str]) -> str:
        """Keep a notebook of nbformat, or the one at a path.

        Raises:
            UnreadableFile: There is no whole notebook at the path.
            TypeError: `obj` is neither.
        """
        if isinstance(obj, Mapping):
            return str(self.write(obj))
        if not isinstance(obj, str | os.PathLike):
            raise TypeError(
                f"NotebookCacher got {obj!r:.80}, expected a notebook of nbformat or the path of "
                "one. Return one of them from the stage."
            )
        source = Path(obj)
        if source.resolve() != self.path.resolve():
            read_cells(source)
            return str(self.write(json.loads(source.read_text(encoding="utf-8"))))
        self.extra_metadata["cells"] = _digest(read_cells(self.path))
        self.save_metadata()
        return str(self.path)

    def _set_aside(self) -> None:
        """Move a notebook that somebody edited away from where a new one is about to be."""
        try:
            recorded, found = self.recorded().get("cells"), _digest(read_cells(self.path))
        except (OSError, UnreadableFile):  # none, or nothing that can be kept
            return
        if recorded in (None, found):
            return
        number = 1
        while (aside := self.path.with_stem(f"{self.path.stem}-edited-{number}")).exists():
            number += 1
        self.path.rename(aside)


def read_cells(path: Path) -> list[dict[str, Any]]:
    """Return the cells of a notebook.

    Raises:
        FileNotFoundError: There is no such file.
        UnreadableFile: It is torn, or something else.
    """
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return [dict(cell) for cell in cells]
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadableFile(
            f"'{path}' is not a whole notebook ({error!r}). Delete it and run its stage again."
        ) from error


def _digest(cells: list[dict[str, Any]]) -> str:
    """Return what changes when somebody edits a cell, but not when it is run."""
    digest = hashlib.sha256()
    for cell in cells:
        source = cell.get("source", "")
        text = source if isinstance(source, str) else "".join(source)
        digest.update(f"{cell.get('cell_type')}\n{text}\0".encode())
    return digest.hexdigest()
