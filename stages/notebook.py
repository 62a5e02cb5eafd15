"""A notebook to explore training runs with, as the output of a stage: one run, or a whole sweep.

explore = exploration_notebook()              # @stage: one notebook for each record
explore_all = sweep_notebook()                # @aggregate: one for all of them

for record in records:
    explore(train(make_dataset(record)))
explore_all(cf.Record(manager, None), records)
"""

import ast
import dataclasses
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..cachers.notebook import NotebookCacher
from ..external.plain_settings import flat_settings, plain_settings
from ..external.rundir import TrainingRun
from ..params import TrainerParams
from ..params.canonical import BOOKKEEPING
from ..params.curifactory_api import Lazy, Record, aggregate, stage
from .comparison import differing
from .notebook_cells import Exploration, notebook_of

_LEFT_OUT = {*BOOKKEEPING, "checkpoint", "launch"}


def exploration_notebook(
    run: str = "run",
    dataset: str | None = "dataset",
    *,
    output: str = "notebook",
    name: str = "explore",
    cacher: NotebookCacher | None = None,
    **settings: Any,
) -> Callable[..., Record]:
    """Return a stage that writes a notebook about the run `run` of the state.

    Args:
        run: The name of the `TrainingRun` in the state.
        dataset: The name of the dataset's path in the state; None if there is none.
        output: The name of the notebook's path in the state.
        name: The stage's name, which is part of the cache's file names.
        cacher: Where the notebook lies; in curifactory's cache without it.
        **settings: What `write_notebook` takes.
    """
    inputs = [run, *([dataset] if dataset is not None else [])]

    def body(record: Record, **artifacts: Any) -> Path:
        data = {record: artifacts[dataset]} if dataset is not None else {}
        return write_notebook(record, [record], {record: artifacts[run]}, data, **settings)

    body.__name__ = body.__qualname__ = name
    _give_signature(body, ["record", *inputs])
    return stage(inputs, [output], [cacher or NotebookCacher()])(body)


def sweep_notebook(
    run: str = "run",
    dataset: str | None = "dataset",
    *,
    output: str = "notebook",
    name: str = "explore_all",
    cacher: NotebookCacher | None = None,
    **settings: Any,
) -> Callable[..., Record]:
    """Return an aggregate stage that writes one notebook about the runs of all its records.

    A record without a run, because its training failed, is named in the notebook, which is written
    anew until there is none. The arguments are those of `exploration_notebook`.
    """
    inputs = [run, *([dataset] if dataset is not None else [])]

    def body(record: Record, records: Sequence[Record], **artifacts: Any) -> Path:
        data = artifacts[dataset] if dataset is not None else {}
        return write_notebook(record, records, artifacts[run], data, **settings)

    body.__name__ = body.__qualname__ = name
    _give_signature(body, ["record", "records", *inputs])
    return aggregate(inputs, [output], [cacher or NotebookCacher()])(body)


def write_notebook(
    record: Record,
    records: Sequence[Record],
    runs: Mapping[Record, TrainingRun | str | os.PathLike[str]],
    datasets: Mapping[Record, str | os.PathLike[str]] | None = None,
    *,
    samples: str = "",
    samples_args: Mapping[str, object] | None = None,
    part: str = "test",
    count: int = 16,
) -> Path:
    """Write the notebook about `runs` and return its path; call it in a stage's body.

    Args:
        record: The stage's record; one of its outputs has a `NotebookCacher`.
        records: Whose runs these are, in the order of the notebook.
        runs: The runs by record; a record may have none.
        datasets: The datasets by record.
        samples: What reads samples, a data module or a function as `package.module:Name`; that of
            the first record's `TrainerParams` without it.
        samples_args: Further arguments of it.
        part: "test", "val" or "train": of which data the samples are.
        count: How many samples.

    Raises:
        ImportError: nbformat is not installed.
    """
    cachers = [each for each in record.stage_cachers or [] if isinstance(each, NotebookCacher)]
    if len(cachers) != 1:
        raise ValueError(
            f"The stage has {len(cachers)} outputs with a NotebookCacher, expected one. Add one: "
            "curitorch.cachers.NotebookCacher."
        )
    home = cachers[0].path.parent
    names = _names(records)
    told = getattr(records[0].params, "trainer", None) if records else None
    trainer = told if isinstance(told, TrainerParams) else TrainerParams()
    manager = record.manager
    title = next(iter(names.values())) if len(names) == 1 else f"{len(names)} runs"
    about = Exploration(
        title=f"{manager.experiment_name}: {title}",
        made_by=f"the stage `{manager.current_stage_name}` of `{manager.get_reference_name()}`",
        home=_relative(home, Path.cwd()),
        runs={names[each]: _relative(_path(runs[each]), home) for each in records if each in runs},
        datasets={
            names[each]: _relative(_path(datasets[each]), home)
            for each in records
            if datasets is not None and each in datasets
        },
        data=samples or trainer.data,
        data_args=dict((samples_args if samples else trainer.data_args) or {}),
        part=part,
        count=count,
        settings=_differences({names[each]: each.params for each in records}),
        missing=tuple(names[each] for each in records if each not in runs),
    )
    notebook = notebook_of(about)
    if manager.dry or manager.dry_cache:
        return cachers[0].path
    return cachers[0].write(notebook, lacks=about.missing)


def _path(artifact: object) -> str:
    """Return the path of an artifact as it is called, links in it not followed."""
    if isinstance(artifact, Lazy) and artifact.cacher is not None:
        artifact = artifact.cacher.get_path()
    if isinstance(artifact, TrainingRun):
        artifact = artifact.path
    if not isinstance(artifact, str | os.PathLike):
        raise TypeError(
            f"A notebook was given a {type(artifact).__name__}, expected a TrainingRun or a path."
        )
    return os.fspath(artifact)


def _relative(path: str | Path, folder: Path) -> str:
    """Return `path` as seen from `folder`; one that lies outside the project stays absolute."""
    whole = Path(os.path.abspath(path))  # noqa: PTH100  # Path.resolve would follow links
    inside = whole.is_relative_to(Path.cwd()) or whole.is_relative_to(Path.cwd().resolve())
    return Path(os.path.relpath(whole, folder)).as_posix() if inside else str(whole)


def _names(records: Sequence[Record]) -> dict[Record, str]:
    """Return a name for each record that no other one has: its parameter set's."""
    names: dict[Record, str] = {}
    for number, each in enumerate(records):
        name = str(getattr(each.params, "name", "") or f"run {number}")
        names[each] = f"{name} ({number})" if name in names.values() else name
    return names


def _differences(params: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return for each parameter set what is not the same in all of them."""
    flat = {}
    for name, each in params.items():
        fields = dataclasses.fields(each) if dataclasses.is_dataclass(each) else ()
        own = {f.name: getattr(each, f.name) for f in fields if f.name not in _LEFT_OUT}
        flat[name] = flat_settings(plain_settings(own))
    return {
        name: {key: value if _is_literal(value) else str(value) for key, value in own.items()}
        for name, own in differing(flat).items()
    }


def _is_literal(value: object) -> bool:
    """Return whether Python reads the value back from its repr."""
    try:
        ast.literal_eval(repr(value))
    except (ValueError, SyntaxError):
        return False
    return True


def _give_signature(body: Callable[..., Any], names: Sequence[str]) -> None:
    """Let curifactory read the names of a stage's inputs off its function."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind) for name in names]
    body.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
