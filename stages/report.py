"""The report of a training run: curves, metrics, checkpoints, hyperparameters, model and failure.

It goes into curifactory's report, and as plain files into the run directory's `report/`.
"""

import base64
import logging
import os
import re
from typing import TYPE_CHECKING, Any

from ..external.atomic import whole_file
from ..external.engine import engines
from ..external.journal import Event
from ..external.plain_settings import flat_settings
from ..external.run_records import (
    hyperparameters,
    lost_lines,
    model_summary,
    not_finite,
    saved_files,
)
from ..external.rundir import TrainingRun
from ..external.viewing.model_rows import headline, layer_rows
from ..params.curifactory_api import HTMLReporter, Record
from .curves import curves, metric_names
from .failure import TrainerFailed, log_tail
from .tables import STYLE, ascii_only, escape, table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["checkpoint_table", "curves", "images", "metric_table", "report_training", "run_report"]


_NAME = "run"
_ONE = {"steps": "step", "epochs": "epoch", "attempts": "attempt", "processes": "process"}
_LONGEST_NAME = 255  # bytes, of a file on the usual file systems


def report_training(
    record: Record, run: TrainingRun, *, failure: TrainerFailed | None = None
) -> None:
    """Add what is known of a run, complete or not, to the report.

    Raises:
        OSError: The disk is full, say; after a failure, which it would hide, that is a warning.
    """
    try:
        _report(record, run, failure)
    except OSError as error:
        if failure is None:
            raise
        logging.getLogger().warning("The report of '%s' is not whole: %s", run.path, error)


def _report(record: Record, run: TrainingRun, failure: TrainerFailed | None) -> None:
    folder = run.path / "report"
    folder.mkdir(exist_ok=True)
    metrics = run.metrics()
    with whole_file(folder / "metrics.csv") as temporary:
        metrics.to_csv(temporary, index=False)
    drawn = curves(metrics, not_finite(run.events()))
    for family, image in drawn.items():
        name = re.sub(r"\W+", "_", family)[:100] or "_"  # curifactory makes file names of names
        with whole_file(folder / f"{name}.png") as temporary:
            temporary.write_bytes(image)
    with whole_file(folder / "checkpoints.csv") as temporary:
        checkpoint_table(run).to_csv(temporary, index=False)
    parts = run_report(run, drawn, failure=failure)
    record.report(HTMLReporter(parts, name=_NAME, group="training"))


def check_name(record: Record) -> None:
    """Refuse before a training what would only fail after it: a name that no file can have.

    Raises:
        ValueError: curifactory cannot keep the report under the parameter set's name.
    """
    if record.params is None:
        return
    name = f"{record.params.name}_{record.manager.current_stage_name}_{_NAME}.pkl"
    found = "a '/' in it" if "/" in name else f"{len(os.fsencode(name))} bytes with the stage's"
    if "/" in name or len(os.fsencode(name)) > _LONGEST_NAME:
        raise ValueError(
            f"The parameter set's name {record.params.name!r} has {found}, and curifactory keeps "
            f"the report in a file of that name. Give a name without '/', {_LONGEST_NAME} bytes "
            "long with the stage's at most."
        )


def run_report(
    run: TrainingRun, drawn: dict[str, bytes], *, failure: TrainerFailed | None = None
) -> list[str]:
    """Return the report as HTML; figures are embedded, so that it works wherever it is moved."""
    events = run.events()
    checkpoints = checkpoint_table(run)
    gone = ["" if exists else "gone" for exists in checkpoints.get("exists", [])]
    shown = checkpoints.drop(columns="exists", errors="ignore").astype(object)
    metrics = metric_table(run.metrics())
    settings = flat_settings(hyperparameters(events))
    model = model_summary(events)
    parts = [
        STYLE,
        '<div class="curitorch">',
        _summary(run, failure, events),
        *_failure(failure),
        images(drawn),
        *(["<h4>Metrics</h4>", table(metrics)] if metrics else []),
        *(["<h4>Checkpoints</h4>", _frame(shown, gone)] if len(shown) else []),
        *(["<h4>Hyperparameters</h4>", table(_pairs(settings))] if settings else []),
        *(_model(model) if model else []),
        "</div>",
    ]
    return ascii_only(parts)


def images(drawn: dict[str, bytes]) -> str:
    """Return figures as HTML that holds them."""
    shown = [
        f'<img alt="{escape(name)}" src="data:image/png;base64,{base64.b64encode(image).decode()}">'
        for name, image in drawn.items()
    ]
    return f'<div class="curves">{"".join(shown)}</div>'


def metric_table(metrics: "pd.DataFrame") -> list[dict[str, Any]]:
    """Return a row per metric: its last, lowest and highest value, and at which steps."""
    rows = []
    for name in metric_names(metrics):
        import pandas as pd

        values = pd.to_numeric(metrics[name], errors="coerce").dropna()
        steps, low, high = metrics["step"], values.idxmin(), values.idxmax()
        rows.append(
            {
                "metric": name,
                "last": float(values.iloc[-1]),
                "at step": int(steps[values.index[-1]]),
                "lowest": float(values[low]),
                "at step ": int(steps[low]),
                "highest": float(values[high]),
                "at step  ": int(steps[high]),
                "logged": len(values),
            }
        )
    return rows


def checkpoint_table(run: TrainingRun) -> "pd.DataFrame":
    """Return what was saved: step, epoch, size in MB, metrics, file; first what the store keeps.

    Files that Lightning saved beside it have `score` and whether they `exists` still.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = [
        {
            "step": checkpoint.step,
            "epoch": checkpoint.epoch,
            "MB": round(checkpoint.bytes / 1e6, 3),
            **checkpoint.metrics,
            "file": f"{checkpoint.path.parent.name}/{checkpoint.path.name}",
            "exists": True,
        }
        for checkpoint in run.checkpoints()
    ]
    for each in saved_files(run.events(), run.path):
        score = None if each["score"] is None else {each["monitor"]: each["score"]}
        rows.append(
            {
                "step": each["step"],
                "epoch": each["epoch"],
                "MB": None if each["bytes"] is None else round(each["bytes"] / 1e6, 3),
                **(score or {}),
                "file": each["file"],
                "exists": each["exists"],
            }
        )
    frame = pd.DataFrame(rows)
    last = [name for name in ("file", "exists") if name in frame]
    return frame[[*(name for name in frame if name not in last), *last]]


def _frame(frame: "pd.DataFrame", classes: list[str]) -> str:
    rows = frame.where(frame.notna(), None).to_dict("records")
    return table(rows, row_classes=classes)


def _pairs(settings: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, "value": str(value)} for name, value in settings.items()]


def _summary(run: TrainingRun, failure: TrainerFailed | None, events: list[Event]) -> str:
    attempts = run.attempts()
    steps = [event for event in events if event["event"] == "step"]
    state = "complete" if run.is_complete else ("failed" if failure else "not complete")
    if not attempts:  # nobody completes what a logger alone wrote
        state = run.state.word
    facts: dict[str, object] = {}
    if run.is_complete:
        facts = {"steps": run.manifest.step, "epochs": run.manifest.epoch}
    elif steps:
        facts = {"steps": steps[-1]["step"]}
    if attempts:
        seconds = sum((a.ended or a.started) - a.started for a in attempts)
        facts |= {"attempts": len(attempts), "processes": attempts[-1].world_size}
    else:  # the journal of a logger
        begun = [event for event in events if event["event"] == "attempt"]
        seconds = events[-1]["time"] - events[0]["time"] if events else 0.0
        facts |= {"attempts": len(begun)}
        facts |= {"processes": begun[-1].get("world_size", 1)} if begun else {}
    facts["seconds"] = f"{seconds:.1f}"
    if trained_by := engines(events):
        facts["engine"] = escape(", then ".join(trained_by))
    if lost := lost_lines(events):
        facts["lines that found no room"] = lost
    counted = [
        (value, _ONE.get(name, name) if value == 1 else name) for name, value in facts.items()
    ]
    said = " \N{MIDDLE DOT} ".join(f"<b>{value}</b> {name}" for value, name in counted)
    command = f"<details><summary>Command</summary><pre>{escape(run.command or '')}</pre></details>"
    return (
        f'<p><span class="state {state.replace(" ", "-")}">{escape(state)}</span> '
        f'<span class="facts">{said}</span></p>'
        f'<p class="facts"><code>{escape(str(run.path))}</code></p>'
        f"{command if run.command else ''}"
    )


def _failure(failure: TrainerFailed | None) -> list[str]:
    if failure is None:
        return []
    tail = failure.log_tail or log_tail(failure.log)
    return [f"<p><b>Failed: {escape(failure.cause)}</b></p>", f"<pre>{escape(tail)}</pre>"]


def _model(model: dict[str, Any]) -> list[str]:
    said, rows = escape(headline(model)), table(layer_rows(model))
    return ["<h4>Model</h4>", f"<details><summary>{said}</summary>{rows}</details>"]
