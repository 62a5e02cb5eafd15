"""What is trained, on what, for how long: everything that may change the weights.

All of it is in the hash of `TrainingParams`, so another value is another training run.
"""

from dataclasses import dataclass, field

from .json_value import json_object
from .limits import (
    MAX_SEED,
    check_integer,
    check_number,
    check_target,
    check_text,
    check_word,
)

ENGINES = ("lightning", "lean")
"""What may train: Lightning's own Trainer, or our lean loop (`external.adapter`)."""


@dataclass(frozen=True, kw_only=True)
class TrainerParams:
    """The settings of one training; the help text of each field is in its metadata.

    `model_args`, `data_args` and `trainer_args` are copied, and hold JSON only (tuples become
    lists), as they cross to the trainer on its command line.

    Never change a default here: a field that equals its default is not in the hash, see
    `canonical`.

    Raises:
        ValueError: A value is impossible; the message says what to write.
    """

    model: str = field(
        default="",
        metadata={"help": "The LightningModule to train, as package.module:Class."},
    )
    model_args: dict[str, object] = field(
        default_factory=dict,
        metadata={"help": "Arguments of the model's constructor."},
    )
    data: str = field(
        default="",
        metadata={
            "help": "A LightningDataModule, or a function that takes the dataset's path and "
            "returns loaders, as package.module:Name. Empty: the model has its own loaders."
        },
    )
    data_args: dict[str, object] = field(
        default_factory=dict,
        metadata={"help": "Further arguments of the data's constructor or function."},
    )
    epochs: int | None = field(
        default=None,
        metadata={"help": "How many passes over the training data; or give steps."},
    )
    steps: int | None = field(
        default=None,
        metadata={"help": "How many optimizer steps; or give epochs."},
    )
    batch_size: int = field(
        default=32,
        metadata={
            "help": "Samples per optimizer step, over all processes and accumulated batches: "
            "a process loads batch_size / accumulate / processes at once."
        },
    )
    accumulate: int = field(
        default=1,
        metadata={"help": "Batches whose gradients are added before each optimizer step."},
    )
    precision: str = field(
        default="32-true",
        metadata={"help": "Lightning's precision, such as 32-true, bf16-mixed or 16-mixed."},
    )
    gradient_clip: float | None = field(
        default=None,
        metadata={"help": "The greatest norm of the gradient; none: not clipped."},
    )
    seed: int = field(
        default=0,
        metadata={"help": "Seeds every random generator, from 0 to 4294967295."},
    )
    trainer_args: dict[str, object] = field(
        default_factory=dict,
        metadata={"help": "Further options of lightning.Trainer, or of the lean loop's."},
    )
    engine: str = field(
        default="lightning",
        metadata={"help": "What trains: 'lightning', its Trainer, or 'lean', our own exact loop."},
    )

    def __post_init__(self) -> None:
        """Refuse impossible values, each with one sentence."""
        check_target("model", self.model, example="digits.model:Classifier")
        check_target("data", self.data, example="digits.data:Digits")
        for name in ("model_args", "data_args", "trainer_args"):
            object.__setattr__(self, name, json_object(name, getattr(self, name)))
        check_integer("epochs", self.epochs, minimum=1, optional=True)
        check_integer("steps", self.steps, minimum=1, optional=True)
        if self.epochs is not None and self.steps is not None:
            raise ValueError(
                f"epochs is {self.epochs} and steps is {self.steps}, expected one of the two. "
                "Leave the other None."
            )
        check_integer("batch_size", self.batch_size, minimum=1)
        check_integer("accumulate", self.accumulate, minimum=1)
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} is not divisible by accumulate {self.accumulate}. "
                "Choose a batch_size that is a multiple of accumulate: it counts the samples of "
                "a whole optimizer step."
            )
        check_text("precision", self.precision, expected="a string such as '32-true'")
        check_number("gradient_clip", self.gradient_clip, unit="gradient norm", optional=True)
        check_integer("seed", self.seed, minimum=0, maximum=MAX_SEED)
        check_word("engine", self.engine, ENGINES)

    def check_complete(self) -> None:
        """Refuse settings with which no training can start: no model, or no length.

        Raises:
            ValueError: `model` is empty, or both `epochs` and `steps` are None.
        """
        if not self.model:
            raise ValueError(
                "model is '', expected package.module:Class. "
                "Write for example model='digits.model:Classifier'."
            )
        if self.epochs is None and self.steps is None:
            raise ValueError(
                "Neither epochs nor steps is given, so the training has no end. "
                "Give one of the two, for example epochs=3."
            )
