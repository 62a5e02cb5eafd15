"""The live line of a training run: redrawn on a terminal, a plain line now and then elsewhere.

With curifactory's `--progress` it becomes a task among its bars; under `--quiet` there is none.
"""

import logging
import time
from typing import Any, Protocol, Self

import rich
from rich.live import Live
from rich.text import Text

from ..external.progress import Progress

PLAIN_SECONDS = 30.0


class LiveLine(Protocol):
    """Shows where a run stands until the `with` block ends."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def show(self, progress: Progress) -> None:
        """Show `progress`; called several times a second, whether it changed or not."""


def live_line(name: str, curifactory_bars: Any) -> LiveLine:
    """Return the live line that fits where the experiment runs.

    Args:
        name: What is being trained.
        curifactory_bars: The manager's rich Progress under `--progress`, else None.
    """
    console = rich.get_console()
    if curifactory_bars is not None:
        return BarLine(name, curifactory_bars)
    if not logging.getLogger().isEnabledFor(logging.INFO):
        return QuietLine()
    if console.is_jupyter:
        return NotebookLine(name)
    if console.is_terminal:
        return TerminalLine(name)
    return PlainLines(name)


class QuietLine:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def show(self, progress: Progress) -> None:
        """Show nothing."""


class PlainLines(QuietLine):
    """Logs a line when an epoch begins, every 30 s, and at the end: for files and pipes."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._epoch = -1
        self._logged_at = -PLAIN_SECONDS
        self._unlogged: Progress | None = None

    def __exit__(self, *exception: object) -> None:
        if self._unlogged is not None:
            self._log(self._unlogged)

    def show(self, progress: Progress) -> None:
        """Log a line if one is due."""
        epoch = progress.epoch if progress.step else -1
        if epoch != self._epoch or time.monotonic() - self._logged_at >= PLAIN_SECONDS:
            self._epoch, self._logged_at = epoch, time.monotonic()
            self._log(progress)
        else:
            self._unlogged = progress

    def _log(self, progress: Progress) -> None:
        self._unlogged = None
        # The root logger: curifactory disables every logger that exists when it starts.
        logging.info("%s: %s", self._name, progress.describe(time.time()))


class TerminalLine(QuietLine):
    """One line that is redrawn in place, below curifactory's log."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._live = Live(console=rich.get_console(), transient=True, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def show(self, progress: Progress) -> None:
        """Redraw the line."""
        text = f"{self._name}: {progress.describe(time.time())}"
        self._live.update(Text(text, no_wrap=True, overflow="ellipsis"))


class NotebookLine(QuietLine):
    """One output of a notebook's cell, updated in place; unlike rich it needs no ipywidgets."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._shown = ""
        self._handle: Any = None

    def show(self, progress: Progress) -> None:
        """Update the output, if it says something new."""
        text = f"{self._name}: {progress.describe(time.time())}"
        if text == self._shown:
            return
        self._shown = text
        content = {"text/plain": text}
        if self._handle is None:
            from IPython.display import display

            self._handle = display(content, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(content, raw=True)


class BarLine(QuietLine):
    """A task among curifactory's own progress bars."""

    def __init__(self, name: str, bars: Any) -> None:
        self._name = name
        self._bars = bars

    def __enter__(self) -> Self:
        self._task = self._bars.add_task(self._name, total=None, name="", hash_big="", hash_cut="")
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.remove_task(self._task)

    def show(self, progress: Progress) -> None:
        """Move the bar."""
        self._bars.update(
            self._task,
            total=progress.planned,
            completed=progress.step,
            name=progress.describe(time.time()),
        )
