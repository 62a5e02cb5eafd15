"""How a job is put before Slurm: resources, limits, and what its script does first.

Used where `LaunchParams.launcher` is "slurm". None of it is in the hash of `TrainingParams`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from .limits import check_flag, check_integer, check_number, check_text

_TIME = re.compile(r"(\d+-)?\d+(:\d{1,2}){0,2}|infinite", re.IGNORECASE)
_MEMORY = re.compile(r"\d+[KMGT]?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class SlurmParams:
    """The settings of a Slurm job; what is None is the cluster's to say.

    Raises:
        ValueError: A value is impossible; the message says what to write.
    """

    partition: str | None = field(
        default=None, metadata={"help": "The partition; several as 'a,b'."}
    )
    account: str | None = field(default=None, metadata={"help": "Whose account is charged."})
    time_limit: str | None = field(
        default=None,
        metadata={"help": "How long one job may run, such as 8:00:00 or 2-12; it requeues then."},
    )
    gpus_per_node: int | None = field(
        default=None, metadata={"help": "GPUs on each node; usually one for each process."}
    )
    cpus_per_node: int | None = field(
        default=None, metadata={"help": "CPUs on each node, for all processes there together."}
    )
    memory: str | None = field(
        default=None, metadata={"help": "Memory on each node, such as 64G; 0: all of it."}
    )
    constraint: str | None = field(
        default=None, metadata={"help": "Features that nodes must have, such as 'a100&ib'."}
    )
    sbatch: list[str] = field(
        default_factory=list,
        metadata={"help": "Further #SBATCH options, such as '--exclude=node7'."},
    )
    srun: list[str] = field(
        default_factory=list,
        metadata={"help": "Further options of srun, such as '--cpu-bind=none'."},
    )
    modules: list[str] = field(
        default_factory=list, metadata={"help": "Modules to load before anything else."}
    )
    setup: list[str] = field(
        default_factory=list,
        metadata={"help": "Shell commands of the job's script before the training, line by line."},
    )
    min_nodes: int | None = field(
        default=None,
        metadata={
            "help": "Go on with so few nodes when others die, which needs launch.max_restarts; "
            "none: all of launch.nodes are needed."
        },
    )
    warning_seconds: int = field(
        default=120,
        metadata={"help": "Seconds before the time limit at which the ranks save and stop."},
    )
    max_requeues: int = field(
        default=1000,
        metadata={"help": "How often a job comes back after its time limit or a preemption."},
    )
    submit: bool = field(
        default=True, metadata={"help": "Submit the job; if not, only write its script."}
    )
    poll_seconds: float = field(
        default=10.0, metadata={"help": "Seconds between two looks at the queue."}
    )

    def __post_init__(self) -> None:
        """Refuse impossible values, each with one sentence."""
        for name in ("partition", "account", "constraint"):
            _check_word(name, getattr(self, name))
        _check_form("time_limit", self.time_limit, _TIME, "8:00:00 or 2-12")
        _check_form("memory", self.memory, _MEMORY, "64G")
        check_integer("gpus_per_node", self.gpus_per_node, minimum=0, optional=True)
        check_integer("cpus_per_node", self.cpus_per_node, minimum=1, optional=True)
        for name in ("sbatch", "srun", "modules", "setup"):
            object.__setattr__(self, name, _lines(name, getattr(self, name)))
        for name in ("sbatch", "srun"):
            for option in getattr(self, name):
                if not option.startswith("-"):
                    raise ValueError(
                        f"{name} has {option!r}, expected an option. Write for example "
                        "'--exclude=node7'."
                    )
        check_integer("min_nodes", self.min_nodes, minimum=1, optional=True)
        check_integer("warning_seconds", self.warning_seconds, minimum=1, maximum=65535)
        check_integer("max_requeues", self.max_requeues, minimum=0)
        check_flag("submit", self.submit)
        check_number("poll_seconds", self.poll_seconds, unit="seconds")


def _check_word(name: str, value: object) -> None:
    """Refuse what would not be one word of one #SBATCH line."""
    if value is None:
        return
    check_text(name, value, expected="a string, or None")
    if not isinstance(value, str) or not value or any(c.isspace() or c in "\"'\\" for c in value):
        raise ValueError(f"{name} is {value!r}, expected one word without spaces and quotes.")


def _check_form(name: str, value: object, form: re.Pattern[str], example: str) -> None:
    if value is not None and not (isinstance(value, str) and form.fullmatch(value)):
        raise ValueError(f"{name} is {value!r}, expected something like {example}, or None.")


def _lines(name: str, value: object) -> list[str]:
    """Return a copy of a list of single lines."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValueError(f"{name} is {value!r}, expected a list of strings such as [{value!r}].")
    for entry in value:
        if not isinstance(entry, str) or not entry.strip() or "\0" in entry or "\n" in entry:
            raise ValueError(f"{name} has {entry!r}, expected a line of text.")
    return list(value)
