"""The picture of a run that is going on, in a cell of a notebook: newest line, bar and curves."""

import base64
import html
import time
from pathlib import Path
from typing import Any

from ..journal import Event
from ..progress import Progress

PICTURE_SECONDS = 2.0


class LivePicture:
    """One output of a cell, redrawn in place; `run` is the run directory."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._progress = Progress()
        self._values: dict[str, dict[float, float]] = {}
        self._curves = b""
        self._drawn_at = -PICTURE_SECONDS
        self._is_new = False
        self._shown = ""
        self._handle: Any = None

    def take_in(self, event: Event) -> None:
        """Take in one event of the journal."""
        self._progress.update(event)
        if event["event"] == "attempt":
            resume_step = int(event["resume_step"])
            for name, values in self._values.items():
                self._values[name] = {s: v for s, v in values.items() if s <= resume_step}
        if event["event"] == "metric":
            for name, value in event["metrics"].items():
                if isinstance(value, int | float):
                    self._values.setdefault(name, {})[float(event["step"])] = float(value)
            self._is_new = True

    def show(self, final: str = "") -> None:
        """Redraw, if there is something new; the curves at most every `PICTURE_SECONDS`."""
        due = bool(final) or time.monotonic() - self._drawn_at >= PICTURE_SECONDS
        if self._is_new and due:
            from .metric_figure import metric_figure

            self._curves = metric_figure({"": self._values})
            self._is_new, self._drawn_at = False, time.monotonic()
        line = self._progress.describe(time.time())
        text = f"{self._run.name}: {line}" + (f"\n{final}" if final else "")
        bar = ""
        if self._progress.planned:
            bar = f'<progress max="{self._progress.planned}" value="{self._progress.step}">'
            bar += "</progress> "
        image = ""
        if self._curves:
            data = base64.b64encode(self._curves).decode()
            image = f'<br><img alt="curves" src="data:image/png;base64,{data}">'
        markup = f"{bar}{html.escape(text)}".replace("\n", "<br>") + image
        if markup == self._shown:
            return
        self._shown = markup
        content = {"text/plain": text, "text/html": markup}
        if self._handle is None:
            from IPython.display import display

            self._handle = display(content, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(content, raw=True)
