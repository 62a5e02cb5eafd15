"""The cells of an exploration notebook: a few lines each, to be read and changed."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import nbformat


@dataclass(frozen=True)
class Exploration:
    """What a notebook is about; paths are as the notebook is to have them, relative to itself.

    `home` is where the notebook lies in its project; `runs` and `datasets` are paths by the names
    of the runs; `data` is what reads samples, `package.module:Name`, empty if nobody said which;
    `settings` is what tells the runs apart; `missing` are names whose training left no run.
    """

    title: str
    made_by: str
    home: str
    runs: Mapping[str, str]
    datasets: Mapping[str, str] = field(default_factory=dict)
    data: str = ""
    data_args: Mapping[str, Any] = field(default_factory=dict)
    part: str = "test"
    count: int = 16
    settings: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


def notebook_of(about: Exploration) -> "nbformat.NotebookNode":
    """Return the notebook as nbformat has it, not yet run.

    Raises:
        ImportError: nbformat is not installed; the message names the extra.
    """
    try:
        import nbformat
    except ImportError as error:
        raise ImportError(
            'An exploration notebook needs nbformat: pip install "curitorch[notebook]".'
        ) from error
    notebook: nbformat.NotebookNode = nbformat.v4.new_notebook()  # type: ignore[no-untyped-call]
    notebook.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    for number, (kind, text) in enumerate(_cells(about)):
        make = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
        cell = make(text)  # type: ignore[no-untyped-call]
        cell["id"] = f"explore-{number}"  # nbformat's are random: the same notebook twice differs
        notebook.cells.append(cell)
    return notebook


def _cells(about: Exploration) -> Iterator[tuple[str, str]]:
    several = len(about.runs) > 1
    first = next(iter(about.runs), "")
    yield "text", _introduction(about)
    yield (
        "code",
        "import curitorch.external.exploration as explore\n\n"
        f"runs = explore.runs(\n{_indented(about.runs)},\n"
        f"    home={_python(about.home)},  # this notebook's folder in its project\n)\n"
        "runs",
    )
    yield "text", "## Curves"
    yield "code", "explore.curves(runs)"
    if several:
        yield "text", "## Comparison"
        yield "code", f"explore.compare(\n    runs,\n{_indented(about.settings)},\n)"
    yield "text", f"## Checkpoints{' of one run' if several else ''}"
    yield "code", f"runs[{_python(first)}].checkpoints()"
    yield (
        "text",
        "## The model\n\nReloaded as the class that it was trained as"
        + (", one for each run." if several else "."),
    )
    yield "code", f"models = explore.models(runs)\nmodel = models.get({_python(first)})\nmodel"
    yield "code", f"runs[{_python(first)}]  # with its modules, their parameters and shapes"
    yield from _samples(about, first)
    yield (
        "text",
        "## While it trains\n\n"
        "A run that is going on is followed from its files; stopping the cell does not stop the "
        f"training:\n\n```python\nruns[{_python(first)}].follow()\n```",
    )


def _introduction(about: Exploration) -> str:
    lines = [
        f"# {about.title}",
        "",
        f"Made by {about.made_by}. Its paths are relative to its own folder, so it works where it "
        "lies, in a project that was moved, and in the archive of a `--store-full` run. Each cell "
        "says in a sentence what it cannot find.",
    ]
    if about.missing:
        names = ", ".join(f"`{name}`" for name in about.missing)
        lines += ["", f"**No run was left by {names}**: their training did not finish."]
    return "\n".join(lines)


def _samples(about: Exploration, first: str) -> Iterator[tuple[str, str]]:
    yield "text", "## Predictions\n\nOn the first samples of the cached dataset."
    data = _python(about.data or None)
    note = "" if about.data else '  # what reads samples, as "package.module:Name"'
    arguments = f"    {_python(about.data_args)},\n" if about.data_args else ""
    if len(set(about.datasets.values())) > 1:
        lines = f"datasets = {_indented(about.datasets, indent='')}\n"
        dataset = f"datasets[{_python(first)}]"
    else:
        lines, dataset = "", _python(next(iter(about.datasets.values()), None))
    yield (
        "code",
        f"{lines}samples = explore.samples(\n    runs,\n    {dataset},\n    {data},{note}\n"
        f"{arguments}    count={about.count},\n    part={_python(about.part)},\n)\nsamples",
    )
    yield "code", "explore.predict(models, samples)"


def _indented(value: Mapping[str, object], indent: str = "    ") -> str:
    """Return a mapping as Python writes it, one entry a line."""
    if not value:
        return f"{indent}{{}}"
    lines = [f"{indent}    {_python(key)}: {_python(entry)}," for key, entry in value.items()]
    return "\n".join([f"{indent}{{", *lines, f"{indent}}}"])


def _python(value: object) -> str:
    """Return a value as Python reads it; texts in double quotes."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False) if value.isprintable() else repr(value)
    if isinstance(value, Mapping):
        entries = (f"{_python(key)}: {_python(entry)}" for key, entry in value.items())
        return "{" + ", ".join(entries) + "}"
    return repr(value)
