"""When a training run saves its state, and how many of these checkpoints it keeps."""

from dataclasses import dataclass, field

from .limits import check_flag, check_integer, check_number, check_text, check_word


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
        metadata={"help": "How many of the newest checkpoints stay; 0: all."},
    )
    keep_best: int = field(
        default=0,
        metadata={"help": "How many of the best checkpoints, by best_metric, stay as well."},
    )
    best_metric: str | None = field(
        default=None,
        metadata={"help": "The logged metric that keep_best goes by, such as val/loss."},
    )
    best_mode: str = field(
        default="min",
        metadata={"help": "Whether a small or a large best_metric is good."},
    )
    keep_every_n_steps: int | None = field(
        default=None,
        metadata={"help": "Checkpoints of steps that this divides stay for ever; none: no such."},
    )
    at_exit: bool = field(
        default=True,
        metadata={"help": "Save when the run is asked to stop (Ctrl-C, SIGTERM)."},
    )
    at_error: bool = field(
        default=True,
        metadata={"help": "Save the last whole step when training raises an error."},
    )
    asynchronous: bool = field(
        default=False,
        metadata={"help": "Go on training while a checkpoint is written, by a process of its own."},
    )
    store: str = field(
        default="local",
        metadata={
            "help": "Where checkpoints go: local (the run directory), tcp, s3, or "
            "package.module:Class of a store of your own."
        },
    )
    store_settings: str = field(
        default="",
        metadata={
            "help": "The store's settings, key=value,key=value; {run} is the run directory's name, "
            "such as root=s3://bucket/{run}/."
        },
    )

    def __post_init__(self) -> None:
        """Refuse impossible values, each with one sentence."""
        check_integer("every_n_steps", self.every_n_steps, minimum=1, optional=True)
        check_number("every_n_seconds", self.every_n_seconds, unit="seconds", optional=True)
        check_integer("every_n_epochs", self.every_n_epochs, minimum=1, optional=True)
        check_integer("keep", self.keep, minimum=0)
        check_integer("keep_best", self.keep_best, minimum=0)
        check_integer("keep_every_n_steps", self.keep_every_n_steps, minimum=1, optional=True)
        check_word("best_mode", self.best_mode, ("min", "max"))
        if self.keep_best and not self.best_metric:
            raise ValueError(
                "keep_best needs a metric to go by. Write best_metric='val/loss', for example."
            )
        check_text("store", self.store)
        check_text("store_settings", self.store_settings)
        check_flag("at_exit", self.at_exit)
        check_flag("at_error", self.at_error)
        check_flag("asynchronous", self.asynchronous)
