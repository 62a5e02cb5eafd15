"""What the cells of an exploration notebook call; works in any notebook, without curifactory.

import curitorch.external.exploration as explore

runs = explore.runs({"quick": "data/cache/digits_1f0a_train_run"})
explore.curves(runs)
models = explore.models(runs)
samples = explore.samples(runs, "digits.npz", "digits.data:DigitsData")
explore.predict(models, samples)

What cannot be done is said in a sentence below the cell, and the other cells go on.
"""

from .comparison import compare
from .curve_view import curves
from .found_runs import Runs, runs
from .predictions import Predictions, predict
from .reloaded import models
from .samples import Samples, samples

__all__ = [
    "Predictions",
    "Runs",
    "Samples",
    "compare",
    "curves",
    "models",
    "predict",
    "runs",
    "samples",
]
