"""Validations of a fit with exact="world": every process goes through all, and shares nothing.

What schedulers and early stopping look at is thus the same for any number of processes, which a
sum over processes would not be, to the last bit.
"""

import contextlib
from collections.abc import Iterator

import torch
from torchmetrics import Metric

from .fit import Fit
from .validation import Validation


class WorldValidation(Validation):
    """Runs the validations of one fit."""

    @torch.no_grad()
    def run(self, *, sanity: bool = False) -> None:
        """Run one validation, see `Validation`."""
        with alone(self._fit):
            super().run(sanity=sanity)


@contextlib.contextmanager
def alone(fit: Fit) -> Iterator[None]:
    """Let what is logged, with `sync_dist` or as a Metric, be of this process within."""
    metrics = [each for each in fit.module.modules() if isinstance(each, Metric)]
    before = [each.distributed_available_fn for each in metrics]
    reduce, fit.logged.reduce = fit.logged.reduce, None
    for each in metrics:
        each.distributed_available_fn = _nobody
    try:
        yield
    finally:
        fit.logged.reduce = reduce
        for each, function in zip(metrics, before, strict=True):
            each.distributed_available_fn = function


def _nobody() -> bool:
    return False
