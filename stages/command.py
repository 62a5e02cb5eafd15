"""The exact words that start the trainer processes on this machine."""

import sys
from collections.abc import Mapping, Sequence

from ..params import LaunchParams


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
