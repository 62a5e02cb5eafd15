"""Train text_classification.py in processes of its own."""

import curifactory as cf

from curitorch.stages import external_training

train = external_training("text_classification.py", sdk=True)


def run(param_sets, manager):
    """Train once for each parameter set."""
    for params in param_sets:
        train(cf.Record(manager, params))
