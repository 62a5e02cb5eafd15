"""A training run and its checkpoints as notebooks show them: small tables, every value escaped."""

import html
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..checkpoint import Checkpoint
from ..journal import Event
from ..run_records import model_summary
from ..run_state import run_state
from ..schema import UnreadableFile
from .model_rows import headline, layer_rows

if TYPE_CHECKING:
    from ..rundir import TrainingRun

COLORS = {"complete": "#2e7d32", "running": "#1565c0", "stopped": "#b26a00"}
_TROUBLE = "#c62828"
_NEWEST = 12
_MEGA = 1e6


class Checkpoints(list[Checkpoint]):
    """The checkpoints of a run, oldest step first: a list that notebooks show as a table."""

    def _repr_html_(self) -> str:
        names = list(dict.fromkeys(name for each in self for name in each.metrics))
        rows = [
            [
                str(each.step),
                str(each.epoch),
                "" if each.samples is None else f"{each.samples:,}",
                "" if each.world_size is None else str(each.world_size),
                f"{each.bytes / _MEGA:.3f}",
                *(number(each.metrics.get(name)) for name in names),
                f"{each.path.parent.name}/{each.path.name}",
            ]
            for each in self
        ]
        if not rows:
            return "<p>No checkpoint.</p>"
        head = ["step", "epoch", "samples", "processes", "MB", *names, "file"]
        return table(head, rows)


def run_html(run: "TrainingRun") -> str:
    """Return what is known of a run as HTML; what is torn in it becomes a sentence."""
    state = run_state(run.path)
    parts = [f"<p><b>{html.escape(run.path.name)}</b> {badge(state.word)} "]
    parts.append(f"{html.escape(state.sentence)}</p>")
    if not run.path.is_dir():
        return "".join(parts)
    try:
        parts.append(_facts(run))
    except (UnreadableFile, OSError, ValueError, KeyError, TypeError) as error:
        parts.append(f'<p style="color:{_TROUBLE}">{html.escape(str(error))}</p>')
    return "".join(parts)


def badge(word: str) -> str:
    """Return a state's word in its colour."""
    color = COLORS.get(word, "#757575" if word == "not begun" else _TROUBLE)
    return (
        f'<span style="background:{color};color:white;border-radius:3px;padding:1px 6px">'
        f"{html.escape(word)}</span>"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return an HTML table of texts, which are escaped here."""
    lines = ["<table><thead><tr>", *(f"<th>{html.escape(cell)}</th>" for cell in head)]
    lines.append("</tr></thead><tbody>")
    for row in rows:
        lines.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>")
    lines.append("</tbody></table>")
    return "".join(lines)


def number(value: object) -> str:
    """Return a metric's value, short; nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)[:40]
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def _facts(run: "TrainingRun") -> str:
    attempts, events = run.attempts(), run.events()
    newest: dict[str, object] = {}
    step, last_time = 0, 0.0
    for event in events:
        last_time = float(event["time"])
        step = max(step, int(event.get("step") or 0))
        if event["event"] == "metric":
            newest.update(event["metrics"])
    checkpoints = run.checkpoints()
    # An attempt whose launcher was killed has no end; the journal's last line is near it.
    ends = [each.ended or each.started for each in attempts]
    if attempts and attempts[-1].ended is None:
        ends[-1] = max(ends[-1], last_time)
    seconds = sum(end - each.started for each, end in zip(attempts, ends, strict=True))
    launches = {}
    if attempts:
        words = [f"{each.number}: {each.outcome or 'no end recorded'}" for each in attempts]
        launches = {"attempts": ", ".join(words), "processes": str(attempts[-1].world_size)}
    elif events:  # nobody launched what a Trainer's logger alone wrote
        seconds = last_time - float(events[0]["time"])
    facts = {
        "step": str(step),
        **launches,
        "time": f"{seconds:.1f} s",
        "checkpoints": f"{len(checkpoints)}"
        + (f", newest of step {checkpoints[-1].step}" if checkpoints else ""),
        **{name: number(value) for name, value in list(newest.items())[:_NEWEST]},
    }
    left = len(newest) - _NEWEST
    more = f"<p>… and {left} more metrics</p>" if left > 0 else ""
    command = ""
    if run.command:
        command = (
            "<details><summary>command</summary><pre style='white-space:pre-wrap'>"
            f"{html.escape(run.command)}</pre></details>"
        )
    return table(["", ""], facts.items()) + more + command + _model(events)


def _model(events: Iterable[Event]) -> str:
    model = model_summary(events)
    if model is None:
        return ""
    rows = layer_rows(model)
    head = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(row.get(name)) for name in head] for row in rows]
    said = html.escape(headline(model))
    return f"<details><summary>{said}</summary>{table(head, cells)}</details>"


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value or "")
