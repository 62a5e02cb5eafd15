"""Stepping learning-rate schedulers when Lightning does.

By step after every optimizer step, by epoch after its last batch; plateau schedulers later, when
what they look at is known: after a validation, or after the hooks that end the epoch.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.types import LRSchedulerConfig


class Schedulers:
    """The schedulers of an automatic fit.

    Args:
        configs: From `optimizers.configured`.
        step: Does it: `LightningModule.lr_scheduler_step`, called as the hook that it is.
        metrics: Returns the values that a plateau scheduler may look at.
    """

    def __init__(
        self,
        configs: list[LRSchedulerConfig],
        *,
        step: Callable[[Any, Any], None],
        metrics: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._step = step
        self._metrics = metrics
        self._groups = {
            (interval, plateau): [
                config
                for config in configs
                if config.interval == interval and config.reduce_on_plateau == plateau
            ]
            for interval in ("step", "epoch")
            for plateau in (False, True)
        }
        self.by_step = self._groups["step", False]
        self.by_step_on_plateau = self._groups["step", True]

    def update(self, interval: str, number: int, *, plateau: bool) -> None:
        """Step those of `interval` that are due.

        Args:
            interval: "step" or "epoch".
            number: Batches of this epoch, or epochs, with the one that ends now.
            plateau: Those that look at a metric, or the others.

        Raises:
            MisconfigurationException: A metric is not there, and the scheduler is strict.
        """
        for config in self._groups[interval, plateau]:
            if number % config.frequency:
                continue
            value = None
            if plateau:
                value = self._metrics().get(str(config.monitor))
                if value is None:
                    self._say_missing(config)
                    continue
            self._step(config.scheduler, value)

    def _say_missing(self, config: LRSchedulerConfig) -> None:
        known = ", ".join(map(repr, self._metrics())) or "nothing"
        what = f"ReduceLROnPlateau looks at {config.monitor!r}, which is not logged; {known} is."
        if config.strict:
            raise MisconfigurationException(f'{what} Log it, or give another "monitor".')
        warnings.warn(f"{what} It is not stepped.", category=RuntimeWarning, stacklevel=2)
