r"""Export what runs logged to the viewers that people keep: TensorBoard's event files, or CSV.

    python -m curitorch.external.journal_export runs/a --to tensorboard viewed/a
    python -m curitorch.external.journal_export runs/a runs/b --to csv tables

Of one run, OUT is the folder of its event file, or its CSV file; of several, a folder with one of
those for each, called as its run directory. Every step stands there once, however many attempts
it took, with the time at which it was logged.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from .atomic import whole_file
from .plain_settings import flat_settings
from .run_records import hyperparameters, model_summary
from .rundir import TrainingRun


def to_csv(run: TrainingRun, out: Path) -> None:
    """Write the table of `TrainingRun.metrics()` to the file `out`."""
    with whole_file(out) as temporary:
        run.metrics().to_csv(temporary, index=False)


def to_tensorboard(run: TrainingRun, out: Path) -> None:
    """Write one event file to the folder `out`: scalars, hyperparameters, the model's summary.

    Values are single precision there. What is no number (text, lists) is left out.

    Raises:
        ImportError: TensorBoard is not installed.
        FileExistsError: The folder has event files: TensorBoard would show both.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError as error:
        raise ImportError(
            'Event files need tensorboard: pip install "curitorch[tensorboard]".'
        ) from error
    if any(out.glob("events.out.tfevents.*")):
        raise FileExistsError(
            f"'{out}' has event files already, and TensorBoard would show both. Export to another "
            "folder, or delete them."
        )
    events = run.events()
    writer = EventFileWriter(str(out))
    try:
        for summary in _summaries(hyperparameters(events), model_summary(events)):
            time = events[0]["time"]
            writer.add_event(Event(wall_time=time, step=0, summary=summary))
        for event in events:
            if event["event"] == "metric":
                values = {"epoch": event["epoch"], **event["metrics"]}
                scalars = [
                    Summary.Value(tag=name, simple_value=value)
                    for name, value in values.items()
                    if isinstance(value, int | float)
                ]
                time, step = event["time"], event["step"]
                writer.add_event(Event(wall_time=time, step=step, summary=Summary(value=scalars)))
    finally:
        writer.close()


KINDS: dict[str, tuple[Callable[[TrainingRun, Path], None], str]] = {
    "tensorboard": (to_tensorboard, ""),
    "csv": (to_csv, ".csv"),
}
"""What there is to export to: by which function, and how its files' names end."""


@click.command(epilog="Example: journal_export runs/a --to tensorboard viewed/a")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("--to", "kind", type=click.Choice(list(KINDS)), required=True, help="What to write.")
@click.argument("out", type=click.Path(path_type=Path))
def main(runs: Sequence[str], kind: str, out: Path) -> None:
    """Export what the run directories RUN... logged to OUT."""
    write, suffix = KINDS[kind]
    names = [Path(name).resolve().name for name in runs]
    if len(set(names)) != len(names):
        raise click.ClickException("Two of the run directories have one name. Export one by one.")
    for name in runs:
        run = TrainingRun(name)
        if not run.layout.journal.is_file():
            raise click.ClickException(f"'{name}' is not a run directory: it has no journal.jsonl.")
        place = out if len(runs) == 1 else out / f"{run.path.resolve().name}{suffix}"
        try:
            write(run, place)
        except (ImportError, OSError, ValueError) as error:
            raise click.ClickException(str(error)) from error
        click.echo(place)


def _summaries(settings: dict[str, Any], model: dict[str, Any] | None) -> list[Any]:
    """Return the summaries of TensorBoard's HPARAMS and TEXT tabs."""
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb
    from tensorboard.plugins.text.summary_v2 import text_pb

    summaries: list[Any] = []
    if settings:
        plain = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in flat_settings(settings).items()
            if not (isinstance(value, float) and math.isnan(value))
        }
        summaries.append(hparams_pb(plain))
    if model:
        rows = [
            f"| {'&nbsp;' * 4 * (each['depth'] - 1)}{each['name']} | {each['type']} | "
            f"{each['parameters']:,} |"
            for each in model["layers"]
        ]
        head = ["| layer | type | parameters |", "|---|---|---:|"]
        total = f"| **{model['type']}** | | **{model['parameters']:,}** |"
        summaries.append(text_pb("model", "\n".join([*head, *rows, total])))
    return summaries


if __name__ == "__main__":
    main()
