"""The runs of a notebook, found from wherever it is opened: beside it, or in the project."""

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..rundir import TrainingRun
from ..viewing.run_html import badge, table
from .notice import say


class Runs(dict[str, TrainingRun]):
    """Training runs by their names; notebooks show them as a table.

    Attributes:
        folder: What relative paths are relative to.
    """

    def __init__(self, found: Mapping[str, TrainingRun], folder: Path) -> None:
        super().__init__(found)
        self.folder = folder

    def path(self, path: str | os.PathLike[str]) -> Path:
        """Return a path of the notebook, which may be absolute or relative to its folder."""
        return Path(os.path.normpath(self.folder / path))

    def _repr_html_(self) -> str:
        if len(self) == 1:
            return next(iter(self.values()))._repr_html_()
        states = {name: run.state for name, run in self.items()}
        rows = [[name, state.word, state.sentence] for name, state in states.items()]
        text = table(["run", "state", ""], rows)
        for word in {state.word for state in states.values()}:
            text = text.replace(f"<td>{word}</td>", f"<td>{badge(word)}</td>")
        return text


def runs(
    paths: Mapping[str, str | os.PathLike[str]],
    *,
    home: str = ".",
    folder: str | os.PathLike[str] | None = None,
) -> Runs:
    """Return handles on the runs at `paths`.

    Args:
        paths: The run directories by the names that they are to have; relative ones are relative
            to the notebook's folder.
        home: Where the notebook's folder lies in its project, so that it is found from the
            project's root and from any folder in the project as well.
        folder: The notebook's folder, where it cannot be found.
    """
    folders = [Path(folder)] if folder is not None else list(_folders(home))
    for candidate in folders:
        if any((candidate / path).is_dir() for path in paths.values()):
            break
    else:
        candidate = folders[0]
        if paths:
            say(
                f"None of the {len(paths)} runs is where this notebook expects it, beginning with "
                f"'{candidate / next(iter(paths.values()))}'. Put the notebook back beside them, "
                'or say which folder it belongs to: explore.runs(…, folder="…").'
            )
    return Runs(
        {name: TrainingRun(_short(candidate, path)) for name, path in paths.items()}, candidate
    )


def _folders(home: str) -> Iterator[Path]:
    """Yield where the notebook's folder may be: as its editor says, here, in a project above."""
    spaces: Any = getattr(sys.modules.get("__main__"), "__dict__", {})
    for told in (spaces.get("__vsc_ipynb_file__"), os.environ.get("JPY_SESSION_NAME")):
        if told and Path(told).is_absolute() and Path(told).is_file():
            yield Path(told).parent
    here = Path.cwd()
    yield here
    for above in (here, *here.parents):
        yield above / home


def _short(folder: Path, path: str | os.PathLike[str]) -> Path:
    """Return the path as it is seen from the working directory, where that is shorter."""
    whole = os.path.normpath(folder / path)
    seen = os.path.relpath(whole)
    return Path(seen if len(seen) < len(whole) else whole)
