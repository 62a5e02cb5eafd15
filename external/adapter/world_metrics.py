"""Torchmetrics that count in training steps with exact="world", which is not all for any world.

torchmetrics adds within each process, and then over processes: whole numbers, largest and smallest
values come out the same in any order, sums of floats and lists do not to the last bit. What depends
on the number of processes is said; a scheduler or early stopping that looks at it is refused.
"""

from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_max, dim_zero_min, dim_zero_sum

from ..refused import Refused
from .fit import Fit
from .log_rules import BY_STEP
from .logged_value import LoggedValue

_REMEDY = (
    "Log the value itself, self.log(name, value, on_epoch=True), which is put together in the "
    "order of the grains; or count whole numbers."
)


class WorldMetrics:
    """Judges the metrics of one fit's module, each once."""

    def __init__(self, fit: Fit) -> None:
        self._fit = fit
        self._unused = {n: m for n, m in fit.module.named_modules() if isinstance(m, Metric)}
        self._updates: dict[str, int] = {}
        self._judged: set[tuple[str, str]] = set()
        self.remember()

    def remember(self) -> None:
        """Take note of what was counted before a global batch."""
        self._updates = {name: metric._update_count for name, metric in self._unused.items()}

    def check(self) -> None:
        """Warn of what began to count in this global batch, and is not the same for any world."""
        for name, before in self._updates.items():
            if name not in self._unused or self._unused[name]._update_count <= before:
                continue
            inexact = inexact_states(self._unused.pop(name))
            if inexact:
                rank_zero_warn(
                    f"The metric '{name}' counts in training steps, and the last bits of its "
                    f"{' and '.join(inexact)} depend on the number of processes: exact='world' "
                    f"does not hold for its value. {_REMEDY}"
                )

    def judge(self, logged: LoggedValue, metric: Metric) -> None:
        """Look at a metric that is logged in training.

        Raises:
            Refused: A scheduler or early stopping looks at what depends on the number of processes.
        """
        if (logged.hook, logged.name) in self._judged:
            return
        self._judged.add((logged.hook, logged.name))
        shows_steps = logged.on_step and logged.hook in BY_STEP
        inexact = inexact_states(metric)
        monitored = {*logged.labels} & self._monitors()
        if not inexact:
            monitored &= {logged.labels[1]} if shows_steps else set()
        if monitored:
            raise Refused(
                f"A scheduler or early stopping looks at {min(monitored)!r}, a "
                f"{type(metric).__name__} that counts in training: its last bits depend on the "
                f"number of processes, and the weights would with them. {_REMEDY} Or let it look "
                "at a value of validation."
            )
        if shows_steps:
            rank_zero_warn(
                f"self.log({logged.name!r}, on_step=True) of a {type(metric).__name__}: a step's "
                "value is of one process's last grain with exact='world', not of its global "
                f"batch. {_REMEDY}"
            )

    def _monitors(self) -> set[str]:
        fit, stopping = self._fit, self._fit.stopping
        configs = [each for each in fit.trainer.lr_scheduler_configs if each.reduce_on_plateau]
        found: list[Any] = [each.monitor for each in configs]
        return {str(each) for each in [*found, *([] if stopping is None else [stopping.monitor])]}


def inexact_states(metric: Metric) -> list[str]:
    """Return the names of the states whose sum over grains depends on its order."""
    return [
        name
        for name, reduction in metric._reductions.items()
        if not _is_exact(getattr(metric, name), reduction)
    ]


def _is_exact(value: Any, reduction: Any) -> bool:
    if not isinstance(value, Tensor):
        return False
    if reduction is dim_zero_sum:
        return not (value.is_floating_point() or value.is_complex())
    return reduction in (dim_zero_max, dim_zero_min)
