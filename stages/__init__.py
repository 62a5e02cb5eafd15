"""curifactory stages that launch a trainer, evaluate its model and report what happened."""

from .autopatched_training import autopatched_training
from .command import command
from .comparison import compare_runs, report_comparison
from .evaluation import evaluate_run, external_evaluation
from .external_training import external_training
from .failure import TrainerFailed, TrainerStopped
from .notebook import exploration_notebook, sweep_notebook, write_notebook
from .report import report_training
from .slurm.queue import SlurmUnreachable
from .slurm.supervision import JobNotSubmitted
from .sweep import SweepFailed, training_sweep
from .training import run_training

__all__ = [
    "JobNotSubmitted",
    "SlurmUnreachable",
    "SweepFailed",
    "TrainerFailed",
    "TrainerStopped",
    "autopatched_training",
    "command",
    "compare_runs",
    "evaluate_run",
    "exploration_notebook",
    "external_evaluation",
    "external_training",
    "report_comparison",
    "report_training",
    "run_training",
    "sweep_notebook",
    "training_sweep",
    "write_notebook",
]
