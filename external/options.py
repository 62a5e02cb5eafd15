"""The standard options of a trainer program, for our own trainer and for a user's.

@click.command()
@trainer_options
@click.option("--width", default=32)
def main(job: TrainerJob, width: int) -> None:
    trainer = job.trainer(max_epochs=3, arguments={"width": width})
    job.fit(trainer, Net(width), DigitsData(job.dataset_path))
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from ..params.checkpoint import CheckpointParams
from ..params.commandline import from_options, options_for
from .groups import groups_left
from .import_object import ObjectNotFound
from .job import TrainerJob
from .open_job import open_job
from .refused import Refused
from .run_lock import RunLocked
from .schema import UnreadableFile
from .stores.settings import BadSettings

_PATH = click.Path(path_type=Path)

JOB_OPTIONS: dict[str, dict[str, Any]] = {
    "run_dir": {
        "type": _PATH,
        "help": "The run directory: everything that the training writes goes there.",
    },
    "dataset_path": {"type": _PATH, "help": "The dataset, a file or a directory."},
    "model_path": {
        "type": _PATH,
        "help": "Where the final model goes as well. Without --run_dir the run directory is this "
        "with the ending '.run'.",
    },
    "checkpoint_dir": {
        "type": _PATH,
        "help": "The directory that checkpoints go to. Without it: 'checkpoints' in the run "
        "directory; see also --store.",
    },
    "resume": {
        "default": "auto",
        "show_default": True,
        "metavar": "auto|none|PATH",
        "help": "Where to begin: at the newest whole checkpoint of this run, at the beginning, or "
        "at the checkpoint PATH of another run.",
    },
    "trusted": {
        "is_flag": True,
        "help": "Open checkpoints that hold more than tensors and plain data, which runs code.",
    },
}

Command = Callable[..., Any]


class Refusal(click.ClickException):
    """One sentence about what the user asked for; the process ends with status 2."""

    exit_code = 2


def job_options(function: Command) -> Command:
    """Add the options of `open_job` and of the checkpoint policy to a click command."""
    for name, settings in reversed(JOB_OPTIONS.items()):
        spellings = dict.fromkeys([f"--{name}", f"--{name.replace('_', '-')}"])
        function = click.option(*spellings, name, **settings)(function)
    return options_for(CheckpointParams)(function)


@contextlib.contextmanager
def job_from_options(options: Mapping[str, Any]) -> Iterator[TrainerJob | None]:
    """Open the job that the options of `job_options` describe; all ranks are through at its end."""
    settings = {name: options[name] for name in JOB_OPTIONS}
    policy = from_options(CheckpointParams, options)
    with groups_left(), open_job(**settings, policy=policy) as job:
        yield job


def trainer_options(function: Command) -> Command:
    """Make a click command a trainer: it gets the standard options as one `TrainerJob`.

    The command's function is called with the job first and its own options after; not at all
    when the run is complete already. Failures reach torchrun and the stage that launched us.
    """

    @functools.wraps(function)
    def command(**options: Any) -> None:
        from torch.distributed.elastic.multiprocessing.errors import record

        with refusals(), job_from_options(options) as job:
            if job is not None:
                names = [*JOB_OPTIONS, *CheckpointParams.__dataclass_fields__]
                own = {name: value for name, value in options.items() if name not in names}
                record(functools.partial(function, job, **own))()

    return job_options(command)


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Turn what the user can mend into one sentence without a traceback, and exit status 2."""
    try:
        yield
    except (Refused, ObjectNotFound, RunLocked, UnreadableFile, BadSettings) as error:
        raise Refusal(str(error)) from error
