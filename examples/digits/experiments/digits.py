"""Train a classifier of handwritten digits in processes of its own, and evaluate it.

    python -m curitorch.stages.run digits -p quick

Nothing here imports torch: a run that finds everything cached takes a second.
"""

import atexit
from pathlib import Path

import curifactory as cf

from curitorch.cachers import DatasetCacher
from curitorch.stages import external_evaluation, external_training, sweep_notebook


def run(param_sets, manager):
    """Train and evaluate one model for each parameter set."""
    records = [cf.Record(manager, params) for params in param_sets]
    for record in records:
        evaluate(train(make_dataset(record)))
    explore(cf.Record(manager, None), records)
    show(cf.Record(manager, None), records)


@cf.stage([], ["dataset"], [DatasetCacher(extension=".npz")])
def make_dataset(record):
    """Write scikit-learn's 1,797 bundled images, always divided in the same way, as one file."""
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(record.params.split_seed).permutation(len(digits.target))
    parts = np.split(order, [1280, 1536])  # the last 261 are for the test
    arrays = {}
    for name, chosen in zip(("train", "val", "test"), parts, strict=True):
        arrays[f"{name}_images"] = (digits.images[chosen] / 16).astype("float32")  # (n, 8, 8)
        arrays[f"{name}_labels"] = digits.target[chosen].astype("int64")  # (n,)
    path = Path(record.stage_cachers[0].get_path())
    np.savez(path, **arrays)
    return path


train = external_training(inputs={"dataset": "dataset_path"})

evaluate = external_evaluation(inputs={"dataset": "dataset_path"})

explore = sweep_notebook(name="explore")  # data/cache/…_explore_notebook.ipynb, for one run or more


@cf.aggregate(["run", "metrics"], [])
def show(record, records, run, metrics):
    """Say what came of it and where it lies; a stage without outputs always runs."""
    manager = record.manager
    report = Path(manager.reports_path, manager.get_reference_name(), "index.html")
    lines = [f"report: {report.resolve()}"]
    for each in records:
        measured = "  ".join(f"{name} {value:.4f}" for name, value in metrics[each].items())
        lines += [
            f"{each.params.name}: {measured}",
            f"  model: {run[each].model_path.resolve()}",
            f"  checkpoints: {run[each].layout.checkpoints.resolve()}",
        ]
    atexit.register(print, "\n".join(lines))  # after curifactory's own last words
