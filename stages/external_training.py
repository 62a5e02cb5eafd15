"""A curifactory stage that trains in processes of their own, from one declaration."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ..cachers import TrainingRunCacher
from ..params.curifactory_api import Record, stage
from .command import option_words
from .training import OWN_TRAINER, run_training

Options = Mapping[str, object] | Callable[[Record], Mapping[str, object]]


def external_training(
    trainer: str = OWN_TRAINER,
    *,
    inputs: Mapping[str, str] | None = None,
    output: str = "run",
    options: Options | None = None,
    name: str = "train",
    cacher: TrainingRunCacher | None = None,
    train: Callable[..., Any] = run_training,
    **settings: Any,
) -> Callable[..., Record]:
    """Return a stage that runs a trainer program and puts its `TrainingRun` into the state.

    The program, the processes and the checkpoint policy come from the record's `TrainingParams`,
    or from `settings`, which `run_training` takes.

        train = external_training(inputs={"dataset": "dataset_path"}, output="run")

    Args:
        trainer: `package.module` or `script.py`; ours without it.
        inputs: Names in the state to names of the program's options; each is passed as a path.
        output: The name of the run in the state.
        options: Further options of the program, or a function of the record that returns them.
            They are not in the hash: a run that was told others is said to be, and is kept.
        name: The stage's name, which is part of the cache's file names.
        cacher: Where the run directory lies; in curifactory's cache without it.
        train: What is called in the stage's body, as `run_training` is.
        **settings: `settings`, `checkpoint`, `launch` of `run_training`.
    """
    names = dict(inputs or {})
    cacher = cacher or TrainingRunCacher()
    if options is not None and not callable(options):
        cacher.options = tuple(option_words(options))

    def body(record: Record, **artifacts: object) -> Any:
        further = options(record) if callable(options) else options
        return train(
            record,
            trainer,
            inputs={option: artifacts[state] for state, option in names.items()},
            options=further,
            **settings,
        )

    # curifactory reads a stage's name and the names of its inputs off the function.
    body.__name__ = body.__qualname__ = name
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(state, kind) for state in ("record", *names)]
    body.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return stage(list(names), [output], [cacher])(body)
