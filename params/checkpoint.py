"""When a training run saves its state, and how many of these checkpoints it keeps."""

from dataclasses import dataclass, field

from .limits import check_flag, check_integer, check_number


@dataclass(frozen=True, kw_only=True)
class CheckpointParams:
    """The checkpoint policy; several occasions may be given, each of them saves.

    Raises:
        ValueError: A value is impossible; the message says what to write.
    """

    every_n_steps: int | None = field(
        default=None,
        metadata={"help": "Save after every so many optimizer steps; none: not by steps."},
    )
    every_n_seconds: float | None = field(
        default=None,
        metadata={"help": "Save once so many seconds have passed; none: not by time."},
    )
    every_n_epochs: int | None = field(
        default=1,
        metadata={"help": "Save after every so many epochs; none: not by epochs."},
    )
    keep: int = field(
        default=3,
        metadata={"help": "How many of the newest checkpoints stay on disk; 0: all."},
    )
    at_exit: bool = field(
        default=True,
        metadata={"help": "Save when the run is asked to stop (Ctrl-C, SIGTERM)."},
    )

    asynchronous: bool = field(
        default=False,
        metadata={"help": "Go on training while a checkpoint is written, by a process of its own."},
    )

    def __post_init__(self) -> None:
        """Refuse impossible values, each with one sentence."""
        check_integer("every_n_steps", self.every_n_steps, minimum=1, optional=True)
        check_number("every_n_seconds", self.every_n_seconds, unit="seconds", optional=True)
        check_integer("every_n_epochs", self.every_n_epochs, minimum=1, optional=True)
        check_integer("keep", self.keep, minimum=0)
        check_flag("at_exit", self.at_exit)
        check_flag("asynchronous", self.asynchronous)
