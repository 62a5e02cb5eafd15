"""curifactory stages that launch a trainer, evaluate its model and report what happened."""

from .autopatched_training import autopatched_training
from .evaluation import evaluate_run, external_evaluation
from .external_training import external_training
from .failure import TrainerFailed, TrainerStopped
from .report import report_training
from .training import run_training

__all__ = [
    "TrainerFailed",
    "TrainerStopped",
    "autopatched_training",
    "evaluate_run",
    "external_evaluation",
    "external_training",
    "report_training",
    "run_training",
]
