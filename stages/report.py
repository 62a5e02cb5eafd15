"""The report of a training run: curves, checkpoints, command and failure.

It goes into curifactory's report, and as plain files into the run directory's `report/`.
"""

import base64
import html
import io
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from ..external.atomic import whole_file
from ..external.rundir import TrainingRun
from ..params.curifactory_api import HTMLReporter, Record
from .failure import TrainerFailed, log_tail

if TYPE_CHECKING:
    import pandas as pd

_PLACE = re.compile(r"^(train|training|val|valid|validation|test)[_/]|[_/](step|epoch)$")


def report_training(
    record: Record, run: TrainingRun, *, failure: TrainerFailed | None = None
) -> None:
    """Add what is known of a run, complete or not, to the report; safe after a failure.

    Figures are embedded, so that the report works wherever it is moved.
    """
    folder = run.path / "report"
    folder.mkdir(exist_ok=True)
    metrics = run.metrics()
    with whole_file(folder / "metrics.csv") as temporary:
        metrics.to_csv(temporary, index=False)
    parts = [_summary(run), *_failure(failure)]
    for family, image in curves(metrics).items():
        name = re.sub(r"\W+", "_", family)  # curifactory makes file names of names
        with whole_file(folder / f"{name}.png") as temporary:
            temporary.write_bytes(image)
        data = base64.b64encode(image).decode()
        parts.append(f'<img alt="{html.escape(family)}" src="data:image/png;base64,{data}">')
    checkpoints = checkpoint_table(run)
    with whole_file(folder / "checkpoints.csv") as temporary:
        checkpoints.to_csv(temporary, index=False)
    parts.append("<h4>Checkpoints</h4>" + checkpoints.to_html(index=False, border=0))
    record.report(HTMLReporter(parts, name="run", group="training"))


def curves(metrics: "pd.DataFrame") -> dict[str, bytes]:
    """Return one PNG per family of metrics: `train_loss` and `val/loss` share the family `loss`.

    Where a later attempt begins, a dashed line marks the step.
    """
    from matplotlib.figure import Figure

    families: dict[str, list[str]] = defaultdict(list)
    for name in metrics.columns[4:]:
        if metrics[name].map(_is_number).any():
            families[_family(str(name))].append(str(name))
    begins = metrics.loc[metrics["attempt"].diff() > 0, "step"] if len(metrics) else []
    images = {}
    for family, names in sorted(families.items()):
        figure = Figure(figsize=(6.4, 3.2), layout="constrained")
        axes = figure.add_subplot(xlabel="step", ylabel=family)
        for name in names:
            values = metrics.loc[metrics[name].map(_is_number), ["step", name]].dropna()
            axes.plot(values["step"], values[name], label=name, marker="." * (len(values) < 50))
        for step in begins:
            axes.axvline(step, color="grey", linestyle="--", linewidth=0.8)
        axes.legend()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120)
        images[family] = buffer.getvalue()
    return images


def checkpoint_table(run: TrainingRun) -> "pd.DataFrame":
    """Return the checkpoints that are kept: step, epoch, size in MB, metrics, file."""
    import pandas as pd

    rows: list[dict[str, Any]] = [
        {
            "step": checkpoint.step,
            "epoch": checkpoint.epoch,
            "MB": round(checkpoint.bytes / 1e6, 3),
            **checkpoint.metrics,
            "file": f"{checkpoint.path.parent.name}/{checkpoint.path.name}",
        }
        for checkpoint in run.checkpoints()
    ]
    return pd.DataFrame(rows)


def _is_number(value: object) -> bool:
    """Return whether a script's value can be drawn: words and lists cannot."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _family(metric: str) -> str:
    """Return what a metric measures, without where and how often: `val/loss_epoch` is `loss`."""
    stripped = metric
    while (shorter := _PLACE.sub("", stripped)) != stripped and shorter:
        stripped = shorter
    return stripped


def _summary(run: TrainingRun) -> str:
    attempts = run.attempts()
    seconds = sum((a.ended or a.started) - a.started for a in attempts)
    state = "complete" if run.is_complete else "not complete"
    processes = attempts[-1].world_size if attempts else 0
    return (
        f"<p>{html.escape(str(run.path))}: {state}, attempts: {len(attempts)}, "
        f"processes: {processes}, {seconds:.1f} s.</p>"
        f"<p>Command: <code>{html.escape(run.command or '')}</code></p>"
    )


def _failure(failure: TrainerFailed | None) -> list[str]:
    if failure is None:
        return []
    tail = failure.log_tail or log_tail(failure.log)
    return [
        f"<p><b>Failed: {html.escape(failure.cause)}</b></p>",
        f"<pre>{html.escape(tail)}</pre>",
    ]
