"""Local mode: nobody launched this process; metrics go to a file of the script's own."""

import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

from ..environment import Ranks
from ..journal import open_for_lines, to_line


class LocalLog:
    """Writes each metric as one JSON line; the file comes to be with the first.

    `{"loss": 0.25}`; NaN and infinities are "NaN", "Infinity" and "-Infinity" there.

    Args:
        name: The file; it is appended to. Without one, `periflow_trainer_<unix time>.log` in the
            working directory, with the rank where there are several processes.
        ranks: This process.
    """

    managed = False

    def __init__(self, name: str | os.PathLike[str] | None, ranks: Ranks) -> None:
        if name is None:
            suffix = f"_{ranks.rank}" if ranks.world_size > 1 else ""
            name = f"periflow_trainer_{int(time.time())}{suffix}.log"
        self.path = Path(name).absolute()
        self.lost = 0
        self._lock = threading.Lock()
        self._has_warned = False
        self._descriptor = -1
        self._rest = b""  # of a line that the disk had no room for
        if ranks.rank == 0:
            logging.getLogger("curitorch").warning(
                "The SDK runs locally, as no stage launched this process: metrics go to '%s', "
                "uploads do nothing.",
                self.path,
            )

    def plan(self, steps: int | None, epochs: int | None, batches_per_epoch: int | None) -> None:
        """Nobody asks."""

    def begin_at(self, step: int) -> None:
        """Nobody asks."""

    def step(self, step: int, seconds: float, epoch: int | None) -> None:
        """Nobody asks."""

    def metric(self, values: dict[str, Any], step: int, epoch: int | None) -> None:
        """Write the values as they are.

        Raises:
            FileNotFoundError: The directory of the file is not there.
        """
        if self._descriptor < 0 and not self.path.parent.is_dir():
            raise FileNotFoundError(
                f"'{self.path.parent}', where the local log is to go, is not there. Make it, or "
                "pass another local_log_name to init()."
            )
        with self._lock:
            data = self._rest + to_line(values)
            try:
                if self._descriptor < 0:
                    self._descriptor = open_for_lines(self.path)
                written = os.write(self._descriptor, data)
                if written >= len(self._rest):
                    self._rest = data[written:]
                    return
                self._rest = self._rest[written:]
            except OSError as error:
                self._warn(error)
            self.lost += 1

    def upload(self, step: int, path: Path | None, *, emergency: bool) -> bool:
        """Nobody takes it."""
        return False

    def is_due(self, step: int) -> bool:
        """Nobody asks for an emergency save."""
        return False

    def check_goes_on(self, step: int) -> None:
        """It does."""

    def close(self, step: int, error: BaseException | None = None) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self.lost:
            logging.getLogger("curitorch").warning("%d metrics were left out.", self.lost)

    def _warn(self, error: OSError) -> None:
        if not self._has_warned:
            self._has_warned = True
            logging.getLogger("curitorch").warning(
                "Metrics cannot be written (%s) and are left out. Training goes on.", error
            )
