"""The exact words that start the trainer processes, on this machine or on each of several."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..external.rundir import TrainingRun
from ..params import CheckpointParams, LaunchParams, TrainerParams
from ..params.commandline import to_arguments
from ..params.curifactory_api import Lazy

OWN_TRAINER = "curitorch.external.trainer"
OWN_TRAINERS = (OWN_TRAINER, "curitorch.external.lean_trainer")


def command(
    trainer: str = OWN_TRAINER,
    *,
    run: TrainingRun | str | os.PathLike[str],
    inputs: Mapping[str, object] | None = None,
    options: Mapping[str, object] | None = None,
    settings: TrainerParams | None = None,
    checkpoint: CheckpointParams | None = None,
    launch: LaunchParams | None = None,
    head: str | None = None,
    port: int = 29400,
    job: str = "curitorch",
    is_host: bool | None = None,
    min_nodes: int | None = None,
) -> list[str]:
    """Return the exact list to run on each node, for launchers that are not ours.

    The same list on every node, when `is_host` is None; a scheduler starts it once per node. The
    trainer takes the run's lock and completes the run by itself: no stage is needed around it.

    Args:
        trainer: `package.module` or `script.py`; ours without it.
        run: The run directory, on a file system that all nodes share.
        inputs: Option names to artifacts, as in `run_training`.
        options: Further options of the program.
        settings: What is trained, for our own trainer.
        checkpoint: When to save.
        launch: How many processes on how many nodes; its launcher is of no account.
        head: The address of one node, on which the nodes meet; needed for several nodes.
        port: A free port there.
        job: Another word for each launch: nodes of an earlier one do not meet those of this.
        is_host: Whether this node is `head`; None lets torchrun find out by the address.
        min_nodes: Go on with so few nodes when others die, with `launch.max_restarts` restarts.

    Raises:
        ValueError: Several nodes, and no `head`.
    """
    launch = launch or LaunchParams()
    program = trainer_words(
        trainer,
        run=run.path if isinstance(run, TrainingRun) else Path(run),
        inputs=inputs,
        options=options,
        settings=settings,
        checkpoint=checkpoint or CheckpointParams(),
        launch=launch,
    )
    if launch.nodes == 1:
        return torchrun_command(program, launch)
    if head is None:
        raise ValueError(
            f"launch.nodes is {launch.nodes}, and there is no head. Write the address of one of "
            "the nodes: head='node-1'."
        )
    conf = [] if is_host is None else [f"--rdzv-conf=is_host={is_host}"]
    elastic = min_nodes is not None
    return [
        *(sys.executable, "-m", "torch.distributed.run"),
        f"--nnodes={f'{min_nodes}:' if elastic else ''}{launch.nodes}",
        f"--nproc-per-node={launch.processes_per_node}",
        f"--max-restarts={launch.max_restarts if elastic else 0}",
        *("--rdzv-backend=c10d", f"--rdzv-endpoint={head}:{port}", f"--rdzv-id={job}", *conf),
        *("-m", "--", "curitorch.external.rank", *program),
    ]


def trainer_words(
    trainer: str,
    *,
    run: Path,
    inputs: Mapping[str, object] | None,
    options: Mapping[str, object] | None,
    settings: TrainerParams | None,
    checkpoint: CheckpointParams,
    launch: LaunchParams,
    sdk: bool = False,
) -> list[str]:
    """Return the words of a trainer program with all its options, as in `run_training`."""
    standard = not sdk
    return [
        *program_words(trainer),
        *([f"--run_dir={run.resolve()}"] if standard else []),
        *(to_arguments(settings) if settings is not None else []),
        *(option_words({name: path_of(value) for name, value in (inputs or {}).items()})),
        *(to_arguments(checkpoint) if standard else []),
        *(_device_words(launch) if trainer in OWN_TRAINERS else []),
        *option_words(options or {}),
    ]


def torchrun_command(program: Sequence[str], launch: LaunchParams) -> list[str]:
    """Return the list that runs `program` in as many processes as `launch` says.

    It can be pasted into a shell after `shlex.join`; no shell takes part when a stage runs it.

    Args:
        program: From `program_words`, with its options.
        launch: How many processes.

    Raises:
        ValueError: The local launcher cannot start several machines.
    """
    if launch.nodes != 1:
        raise ValueError(
            f"launch.nodes is {launch.nodes}, but the local launcher starts this machine only. "
            "Set nodes=1."
        )
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        f"--nproc-per-node={launch.processes_per_node}",
        "--max-restarts=0",  # the stage restarts: each attempt has its own record and logs
        # torchrun takes even the trainer's options for abbreviations of its own without "--".
        *("-m", "--", "curitorch.external.rank", *program),
    ]


def program_words(trainer: str) -> list[str]:
    """Return the words of a trainer program: `-m package.module`, or a script's path.

    Raises:
        ValueError: `trainer` is a path that does not end in `.py`, or empty.
    """
    if trainer.endswith(".py"):
        return [trainer]
    if not trainer or "/" in trainer or not all(p.isidentifier() for p in trainer.split(".")):
        raise ValueError(
            f"Trainer {trainer!r} is neither a module nor a script. "
            "Write package.module or the path of a .py file."
        )
    return ["-m", trainer]


def option_words(options: Mapping[str, object]) -> list[str]:
    """Return `--name=value` for each option, in the order given.

    True gives the bare flag; False and None give nothing; a list repeats the option.
    """
    words = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        if value is True:
            words.append(f"--{name}")
        elif isinstance(value, list | tuple):
            words.extend(f"--{name}={entry}" for entry in value)
        else:
            words.append(f"--{name}={value}")
    return words


def path_of(artifact: object) -> str:
    """Return the path of an input artifact as a trainer is told it, absolute.

    Raises:
        TypeError: It is neither a handle of ours, a path, nor a Lazy with a cacher.
    """
    if isinstance(artifact, Lazy):
        if artifact.cacher is None:
            raise TypeError(f"Lazy input {artifact.name!r} has no cacher. Give its stage one.")
        artifact = artifact.cacher.get_path()
    if isinstance(artifact, TrainingRun):
        artifact = artifact.path
    if isinstance(artifact, str | os.PathLike):
        return str(Path(artifact).resolve())
    raise TypeError(
        f"A {type(artifact).__name__} was given as the input of a trainer, expected a path. "
        "Cache it in a stage before, e.g. with DatasetCacher, or mark it Lazy(…, resolve=False)."
    )


def _device_words(launch: LaunchParams) -> list[str]:
    kept = {"accelerator": launch.accelerator, "strategy": launch.strategy}
    return option_words({name: value for name, value in kept.items() if value != "auto"})
