"""The parameter set of an experiment that trains: curifactory's, with the settings of a training.

    @dataclass
    class Params(TrainingParams):
        test_share: float = 0.2
        workers: int = 4
        hash_representations: dict = cf.set_hash_functions(workers=None)

Of the four settings only `trainer` is in the hash. The others are not: on how
many processes a model was trained, and how often it was saved on the way, does not make it
another model, and a change there must not throw away (or train again) one that is finished.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from .canonical import BOOKKEEPING, canonical
from .checkpoint import CheckpointParams
from .curifactory_api import ExperimentParameters
from .launch import LaunchParams
from .slurm import SlurmParams
from .trainer import TrainerParams

Representation: TypeAlias = Callable[[Any, Any], Any] | None


@dataclass
class TrainingParams(ExperimentParameters):
    """What an experiment's parameter set holds to train one model; made to be subclassed.

    A subclass may set `hash_representations` of its own: what its parents exclude stays excluded
    (curifactory alone would forget it), and an entry of the subclass wins over theirs. Fields
    without an entry are hashed by `representation`.

    Attributes:
        trainer: What is trained, on what, for how long; in the hash.
        checkpoint: When to save; not in the hash.
        launch: Where to run; not in the hash.
        slurm: What a job asks for where `launch.launcher` is "slurm"; not in the hash.
    """

    trainer: TrainerParams = field(default_factory=TrainerParams)
    checkpoint: CheckpointParams = field(default_factory=CheckpointParams)
    launch: LaunchParams = field(default_factory=LaunchParams)
    slurm: SlurmParams = field(default_factory=SlurmParams)
    hash_representations: dict[str, Representation] = field(
        default_factory=lambda: {"checkpoint": None, "launch": None, "slurm": None}, repr=False
    )

    def __setattr__(self, name: str, value: object) -> None:
        """Set a field; `hash_representations` is completed by those of all parents.

        Here and not in `__post_init__`, which a subclass may define without calling ours.
        """
        if name == "hash_representations" and isinstance(value, Mapping):
            value = _completed(type(self), value)
        super().__setattr__(name, value)


def representation(params: object, value: object) -> str | None:
    """Return what curifactory hashes, behind the field's name, for a field without an entry.

    Nested settings have one canonical text. All else is as curifactory has it (a callable's
    qualified name, or repr; None is not hashed), behind a space: without it the fields `size`
    and `size1` with 12 and 3 would have the same hash as with 13 and 2.

    Raises:
        TypeError: Nested settings hold something that has no text, see `canonical`.
    """
    if value is None:
        return None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return canonical(value, where=type(value).__qualname__)
    if callable(value):
        return f" {getattr(value, '__qualname__', repr(value))}"
    return f" {value!r}"


def _completed(
    cls: type[TrainingParams], own: Mapping[str, Representation]
) -> dict[str, Representation]:
    """Return a representation for every field: `own`, else the nearest parent's, else ours."""
    fields = [each.name for each in dataclasses.fields(cls) if each.name not in BOOKKEEPING]
    completed: dict[str, Representation] = dict.fromkeys(fields, representation)
    for parent in reversed(cls.__mro__):
        declared = parent.__dict__.get("__dataclass_fields__", {}).get("hash_representations")
        if declared is not None and declared.default_factory is not dataclasses.MISSING:
            completed |= declared.default_factory()
    return completed | dict(own)
