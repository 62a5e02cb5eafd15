"""Evaluating a trained model from a stage, in a process of its own: this one needs no torch."""

import inspect
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ..cachers import JsonFileCacher
from ..external import leash
from ..external.rundir import TrainingRun
from ..params import TrainerParams
from ..params.commandline import to_arguments
from ..params.curifactory_api import JsonReporter, Record, stage
from .announcement import announce
from .failure import log_tail
from .python_path import python_path
from .training import path_of


class EvaluationFailed(RuntimeError):
    """The evaluator ended without metrics; the message has the last lines of its log."""


def evaluate_run(
    record: Record,
    run: TrainingRun,
    *,
    inputs: Mapping[str, object] | None = None,
    settings: TrainerParams | None = None,
    on: str = "test",
    trusted: bool = False,
) -> dict[str, float]:
    """Return the metrics of a run's final model on a dataset, and add them to the report.

    Args:
        record: The stage's record.
        run: A complete run.
        inputs: Option names to artifacts, as in `run_training`; usually `dataset_path`.
        settings: Says which data; from the record's `TrainingParams` without it.
        on: "test" or "val".
        trusted: Open a model file that runs code when opened.

    Raises:
        EvaluationFailed: The evaluator failed; what it printed is in the message.
    """
    settings = settings or record.params.trainer
    metrics_path = run.path / "report" / f"{on}.json"
    command = [
        *(sys.executable, "-m", "curitorch.external.evaluator"),
        *(f"--model_path={run.model_path.resolve()}", f"--metrics_path={metrics_path.resolve()}"),
        *(f"--{name}={path_of(value)}" for name, value in (inputs or {}).items()),
        *(f"--on={on}", *(["--trusted"] if trusted else [])),
        *to_arguments(settings),
    ]
    if record.manager.dry or record.manager.dry_cache:
        announce("Dry, not launched", command)
        return {}
    announce("Evaluating", command)
    metrics_path.parent.mkdir(exist_ok=True)
    metrics_path.unlink(missing_ok=True)
    log = run.path / "logs" / f"{on}.log"
    with log.open("wb") as output:
        result = subprocess.run(
            [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), *command],
            env={**os.environ, "PYTHONPATH": python_path()},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if result.returncode != 0 or not metrics_path.is_file():
        tail = "\n".join(f"  | {line}" for line in log_tail(log).splitlines())
        raise EvaluationFailed(
            f"The evaluator exited with code {result.returncode}. Its log: {log}\n{tail}\n"
            f"It alone:\n  {shlex.join(command)}"
        )
    metrics: dict[str, float] = json.loads(metrics_path.read_text(encoding="utf-8"))
    record.report(JsonReporter(metrics, name=on, group="evaluation"))
    return metrics


def external_evaluation(
    run: str = "run",
    *,
    inputs: Mapping[str, str] | None = None,
    output: str = "metrics",
    name: str = "evaluate",
    **settings: Any,
) -> Callable[..., Record]:
    """Return a stage that evaluates the run `run` of the state and puts its metrics there.

    Args:
        run: The name of the `TrainingRun` in the state.
        inputs: Names in the state to names of the evaluator's options.
        output: The name of the metrics, a dictionary, in the state.
        name: The stage's name.
        **settings: What `evaluate_run` takes.
    """
    names = dict(inputs or {})

    def evaluate(record: Record, **artifacts: Any) -> Any:
        given = {option: artifacts[state] for state, option in names.items()}
        return evaluate_run(record, artifacts[run], inputs=given, **settings)

    evaluate.__name__ = evaluate.__qualname__ = name
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(state, kind) for state in ("record", run, *names)]
    evaluate.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return stage([run, *names], [output], [JsonFileCacher])(evaluate)
