"""Comparing the runs of a sweep: an aggregate stage with one table and overlaid curves.

compare = compare_runs()

def run(param_sets, manager):
    records = [train(make_dataset(cf.Record(manager, params))) for params in param_sets]
    compare(cf.Record(manager, None), records)
"""

import dataclasses
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..cachers import MetricsCacher
from ..external.plain_settings import flat_settings, plain_settings
from ..external.run_records import hyperparameters, not_finite
from ..external.rundir import TrainingRun
from ..external.viewing.panel import run_colors
from ..params.curifactory_api import HTMLReporter, Record, aggregate
from .curves import overlaid
from .report import images, metric_table
from .tables import STYLE, Html, ascii_only, escape, table

if TYPE_CHECKING:
    import pandas as pd

_BETTER = (
    (min, re.compile(r"loss|err|mae|mse|nll|ppl|perplexity|wer\b|cer\b", re.IGNORECASE)),
    (max, re.compile(r"acc|auc|auroc|f1|precision|recall|iou|dice|bleu|rouge|r2", re.IGNORECASE)),
)
_NOT_SETTINGS = ("name", "hash", "overwrite", "hash_representations")


def compare_runs(
    run: str = "run", *, output: str = "comparison", name: str = "compare"
) -> Callable[..., Record]:
    """Return an aggregate stage that compares the runs `run` of several records in the report.

    Args:
        run: The name of the `TrainingRun` in the records' states.
        output: The name of the table, a DataFrame with one row per run.
        name: The stage's name.
    """

    def compare(record: Record, records: Sequence[Record], **inputs: Any) -> "pd.DataFrame":
        found = inputs[run]
        runs = {label: found[each] for label, each in _labels(list(found)).items()}
        settings = {label: _settings(each) for label, each in _labels(list(found)).items()}
        return report_comparison(record, runs, settings)

    compare.__name__ = compare.__qualname__ = name
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = ("record", "records", run)
    parameters = [inspect.Parameter(each, kind) for each in names]
    compare.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return aggregate([run], [output], [MetricsCacher])(compare)


def report_comparison(
    record: Record,
    runs: Mapping[str, TrainingRun],
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> "pd.DataFrame":
    """Add a comparison of runs to the report and return its table.

    Args:
        record: Whose report; in an aggregate stage's body, that of the aggregate.
        runs: By the names that the report gives them.
        settings: What each was told, beside the hyperparameters that it logged.

    Returns:
        One row per run: `run`, the settings in which they differ, and for each metric the best
        value, or the lowest and the highest where its name does not tell which is better; `last`.
    """
    import pandas as pd

    tables = {label: run.metrics() for label, run in runs.items()}
    told = {label: dict((settings or {}).get(label, {})) for label in runs}
    for label, run in runs.items():
        told[label].update(flat_settings(hyperparameters(run.events())))
    rows = [{"run": label, **differing(told)[label], **_outcome(tables[label])} for label in runs]
    colors = run_colors(len(runs))
    lost = {label: not_finite(run.events()) for label, run in runs.items()}
    parts = [
        STYLE,
        '<div class="curitorch">',
        table(_colored(rows, colors), best=_best(rows)),
        images(overlaid(tables, colors, lost)),
        "</div>",
    ]
    record.report(HTMLReporter(ascii_only(parts), name="comparison", group="comparison"))
    return pd.DataFrame(rows)


def differing(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return for each run the settings that not all runs have with the same value."""
    names = dict.fromkeys(name for own in settings.values() for name in own)
    kept: dict[tuple[str, ...], str] = {}
    for name in sorted(names, key=len):  # `lr` rather than `trainer.model_args.lr`
        values = [_key(own.get(name)) for own in settings.values()]
        if len(set(values)) > 1:
            kept.setdefault((name.rpartition(".")[2], *values), name)
    return {
        label: {n: _shown(own.get(n)) for n in kept.values()} for label, own in settings.items()
    }


def better(metric: str) -> Callable[..., float] | None:
    """Return `min` or `max` where the name of a metric tells which is better."""
    return next((choose for choose, names in _BETTER if names.search(metric)), None)


def _labels(records: Sequence[Record]) -> dict[str, Record]:
    """Return the records by the names of their parameters, with the hash where two have one."""
    names = [each.params.name for each in records]
    return {
        n if names.count(n) == 1 else f"{n} {each.get_hash()[:6]}": each
        for n, each in zip(names, records, strict=True)
    }


def _settings(record: Record) -> dict[str, Any]:
    params = record.params
    if not dataclasses.is_dataclass(params) or isinstance(params, type):
        return {}
    fields = {each.name: getattr(params, each.name) for each in dataclasses.fields(params)}
    return flat_settings(
        plain_settings({k: v for k, v in fields.items() if k not in _NOT_SETTINGS})
    )


def _outcome(metrics: "pd.DataFrame") -> dict[str, Any]:
    outcome: dict[str, Any] = {}
    for row in metric_table(metrics):
        choose, name = better(row["metric"]), row["metric"]
        if choose is not None:
            outcome[f"{name} best"] = row["lowest"] if choose is min else row["highest"]
        else:
            outcome |= {f"{name} lowest": row["lowest"], f"{name} highest": row["highest"]}
        outcome[f"{name} last"] = row["last"]
    return outcome


def _best(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return in which row each column of a metric has its best value."""
    found = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        choose = better(name.rpartition(" ")[0]) if name.endswith((" best", " last")) else None
        values = {at: row[name] for at, row in enumerate(rows) if row.get(name) is not None}
        if choose is not None and len(values) > 1:
            best = choose(values.values())
            found[name] = next(at for at, value in values.items() if value == best)
    return found


def _colored(rows: Sequence[Mapping[str, Any]], colors: Sequence[str]) -> list[dict[str, Any]]:
    swatch = '<span class="swatch" style="background: {}"></span>{}'
    return [
        {**row, "run": Html(swatch.format(color, escape(str(row["run"]))))}
        for row, color in zip(rows, colors, strict=True)
    ]


def _key(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _shown(value: object) -> object:
    return json.dumps(value) if isinstance(value, dict | list) else value
