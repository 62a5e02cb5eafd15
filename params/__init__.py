"""What a training run is told: frozen dataclasses, and their way over a command line and back.

`TrainingParams` is imported on first use: it alone needs curifactory.
"""

from typing import TYPE_CHECKING

from .checkpoint import CheckpointParams
from .launch import LaunchParams
from .slurm import SlurmParams
from .trainer import TrainerParams

if TYPE_CHECKING:
    from .experiment import TrainingParams

__all__ = ["CheckpointParams", "LaunchParams", "SlurmParams", "TrainerParams", "TrainingParams"]


def __getattr__(name: str) -> object:
    """Import `TrainingParams` when it is asked for (PEP 562)."""
    if name == "TrainingParams":
        from .experiment import TrainingParams

        return TrainingParams
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), "TrainingParams"])
