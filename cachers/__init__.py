"""curifactory's side of what trainers wrote: cachers, and the handles that they load."""

from ..external.model import load_model
from ..external.rundir import TrainingRun
from .dataset import DatasetCacher
from .json_file import JsonFileCacher
from .metrics import MetricsCacher
from .model import LightningModelCacher
from .notebook import NotebookCacher
from .training_run import TrainingRunCacher
from .whole import WholeCacher

__all__ = [
    "DatasetCacher",
    "JsonFileCacher",
    "LightningModelCacher",
    "MetricsCacher",
    "NotebookCacher",
    "TrainingRun",
    "TrainingRunCacher",
    "WholeCacher",
    "load_model",
]
