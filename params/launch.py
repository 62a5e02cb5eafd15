"""Where and how the trainer processes are started: hardware, restarts and patience.

None of it is in the hash of `TrainingParams`: the same training on other hardware is the same
training, as its batch size counts the samples of all processes together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from .limits import check_flag, check_integer, check_number, check_text, check_word

ACCELERATORS = ("auto", "cpu", "gpu")
LAUNCHERS = ("local", "slurm")


@dataclass(frozen=True, kw_only=True)
class LaunchParams:
    """The settings of a launch.

    Raises:
        ValueError: A value is impossible; the message says what to write.
    """

    processes_per_node: int = field(
        default=1,
        metadata={"help": "Trainer processes on each machine; with GPUs, one for each."},
    )
    nodes: int = field(default=1, metadata={"help": "How many machines take part."})
    accelerator: str = field(
        default="auto",
        metadata={"help": "cpu, gpu, or auto: the GPUs where there are any."},
    )
    strategy: str = field(
        default="auto",
        metadata={"help": "Lightning's strategy, such as auto, ddp or fsdp."},
    )
    launcher: str = field(
        default="local",
        metadata={
            "help": "What starts the processes: local, this machine; slurm, a job, see SlurmParams."
        },
    )
    max_restarts: int = field(
        default=0,
        metadata={"help": "How often failed processes are started again within one run."},
    )
    grace_seconds: float = field(
        default=30.0,
        metadata={"help": "Seconds to save and stop in, before the processes are killed."},
    )
    stall_seconds: float | None = field(
        default=600.0,
        metadata={
            "help": "Seconds without the end of a step until a script is reported as stalled, with "
            "the Python stacks of its ranks; none: never."
        },
    )
    kill_stalled: bool = field(
        default=False,
        metadata={"help": "Kill stalled processes, as if they had failed; see max_restarts."},
    )
    lock_wait_seconds: float | None = field(
        default=None,
        metadata={
            "help": "Seconds to wait for another process that trains in the same run directory; "
            "none: as long as it takes; 0: fail at once."
        },
    )
    environment: dict[str, str] = field(
        default_factory=dict,
        metadata={"help": "Environment variables added to those of the trainer processes."},
    )

    def __post_init__(self) -> None:
        """Refuse impossible values, each with one sentence."""
        check_integer("processes_per_node", self.processes_per_node, minimum=1)
        check_integer("nodes", self.nodes, minimum=1)
        check_word("accelerator", self.accelerator, ACCELERATORS)
        check_text("strategy", self.strategy, expected="a string such as 'ddp'")
        check_word("launcher", self.launcher, LAUNCHERS)
        check_integer("max_restarts", self.max_restarts, minimum=0)
        check_number("grace_seconds", self.grace_seconds, unit="seconds", zero=True)
        check_number("stall_seconds", self.stall_seconds, unit="seconds", optional=True)
        check_flag("kill_stalled", self.kill_stalled)
        if self.kill_stalled and self.stall_seconds is None:
            raise ValueError("kill_stalled needs a time to go by. Write stall_seconds=600, say.")
        check_number(
            "lock_wait_seconds", self.lock_wait_seconds, unit="seconds", zero=True, optional=True
        )
        object.__setattr__(self, "environment", _environment(self.environment))


def _environment(environment: object) -> dict[str, str]:
    """Return a copy, after a look at every name and value."""
    if not isinstance(environment, Mapping):
        raise ValueError(
            f"environment is {environment!r}, expected a dictionary such as {{'DEBUG': '1'}}."
        )
    for name, value in environment.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise ValueError(
                f"environment has the name {name!r}, expected a string that is not empty and has "
                "no '='. Write for example 'OMP_NUM_THREADS'."
            )
        if not isinstance(value, str) or "\0" in value:
            raise ValueError(
                f"environment[{name!r}] is {value!r}, expected a string without NUL. "
                f"Write for example {str(value).replace(chr(0), '')!r}."
            )
    return dict(environment)
