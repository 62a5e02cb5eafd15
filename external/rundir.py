"""A training run as a value: a light handle on a run directory, which opens what is asked for."""

import os
import shlex
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .attempt import Attempt, read_attempts
from .checkpoint import Checkpoint, list_checkpoints, newest_valid
from .journal import Event, merged, read_journal
from .layout import Layout
from .manifest import Manifest, is_complete, read_manifest
from .run_state import RunState, run_state
from .viewing.following import Following
from .viewing.run_html import Checkpoints, run_html

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from lightning.pytorch import LightningModule


class TrainingRun:
    """One training: one directory, however many attempts, processes and interruptions it took.

    Cheap to make, to pickle and to pass between stages: it holds a path and reads files only when
    asked. The directory may be moved; make a new handle from its new place.

    Args:
        path: The run directory.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @property
    def layout(self) -> Layout:
        """Where things lie in the run directory."""
        return Layout(self.path)

    @property
    def is_complete(self) -> bool:
        """Whether the run finished and every file that its manifest names is there."""
        return is_complete(self.path)

    @property
    def manifest(self) -> Manifest:
        """What the run ended with.

        Raises:
            FileNotFoundError: The run is not complete.
            UnreadableFile: A file that the manifest names is missing or altered.
        """
        if not self.layout.manifest.exists():
            raise FileNotFoundError(f"'{self.path}' has no manifest.json. {self.state.sentence}")
        return read_manifest(self.path)

    @property
    def model_path(self) -> Path:
        """The final model: an ordinary Lightning checkpoint, there once the run is complete."""
        return self.layout.model

    def model(
        self,
        *,
        model_class: "type[LightningModule] | None" = None,
        map_location: "str | torch.device | None" = "cpu",
        trusted: bool = False,
        aliases: Mapping[str, str] | None = None,
    ) -> "LightningModule":
        """Load the final model as the class that it was trained as; see `load_model`."""
        from .model import load_model

        return load_model(
            self.model_path,
            model_class=model_class,
            map_location=map_location,
            trusted=trusted,
            aliases=aliases,
        )

    @property
    def state(self) -> RunState:
        """What became of the run, or is becoming of it, as far as its files tell."""
        return run_state(self.path)

    def follow(
        self, *, every: float = 0.5, timeout: float | None = None, through: bool = False
    ) -> Following:
        """Follow the run while it is trained, elsewhere, from its files alone.

        As the last line of a notebook's cell it shows the newest line and the curves until the
        run is over; `for event in run.follow():` goes through the events, those that there are
        and those to come. Interrupting it ends the following, never the training.

        Args:
            every: Seconds between two looks at the files.
            timeout: Seconds after which the following ends in any case.
            through: Go on to the next attempt where one failed or was stopped.
        """
        return Following(self.path, every=every, timeout=timeout, through=through)

    def checkpoints(self) -> Checkpoints:
        """Return the whole checkpoints, oldest step first; in a notebook, a table of them."""
        return Checkpoints(list_checkpoints(self.layout.checkpoints))

    def newest_checkpoint(self) -> Checkpoint | None:
        """Return the newest checkpoint whose checksum holds, or None."""
        return newest_valid(self.layout.checkpoints)

    def attempts(self) -> list[Attempt]:
        """Return the launches that this run took, first one first."""
        return read_attempts(self.path)

    @property
    def command(self) -> str | None:
        """The exact command of the last attempt, ready to paste; None before the first."""
        attempts = self.attempts()
        return shlex.join(attempts[-1].command) if attempts else None

    @property
    def sbatch(self) -> str | None:
        """The script of the Slurm job that trains or trained it; None without one."""
        try:
            return self.layout.sbatch.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def events(self) -> list[Event]:
        """Return the journal as one uninterrupted history, every step exactly once."""
        return merged(read_journal(self.layout.journal))

    def metrics(self) -> "pd.DataFrame":
        """Return every logged value: columns `step`, `epoch`, `time`, `attempt`, one per metric.

        One row per step at which something was logged; a metric that was not logged there is NaN. A
        metric that is called as one of the first four has `metric/` before its name. Where there is
        no run, there is no row, and a warning.
        """
        import pandas as pd

        if not self.path.is_dir():
            warnings.warn(self.state.sentence, stacklevel=2)
        columns = ["step", "epoch", "time", "attempt"]
        rows: dict[int, dict[str, Any]] = {}
        attempt = 0
        for event in self.events():
            if event["event"] == "attempt":
                attempt = int(event["attempt"])
            if event["event"] == "metric":
                row = rows.setdefault(int(event["step"]), {})
                row.update(step=event["step"], epoch=event["epoch"], time=event["time"])
                row.update(attempt=attempt)
                for name, value in event["metrics"].items():
                    row[f"metric/{name}" if name in columns else name] = value
        frame = pd.DataFrame(list(rows.values()))
        return frame.reindex(columns=[*columns, *(c for c in frame.columns if c not in columns)])

    def log(self, rank: int = 0, attempt: int | None = None) -> str:
        """Return the whole output of one rank in one attempt, the last one unless told.

        Raises:
            FileNotFoundError: That rank wrote no log in that attempt.
        """
        if attempt is None:
            attempts = self.attempts()
            attempt = attempts[-1].number if attempts else 0
        return self.layout.rank_log(attempt, rank).read_text(encoding="utf-8", errors="replace")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TrainingRun) and self.path.resolve() == other.path.resolve()

    def __hash__(self) -> int:
        return hash(self.path.resolve())

    def _repr_html_(self) -> str:
        return run_html(self)

    def __repr__(self) -> str:
        return f"TrainingRun({str(self.path)!r})"
