"""One key of `self.log`: what it is called, what was logged last, and its mean, sum, min or max.

The arithmetic is that of Lightning's `_ResultMetric`, operation by operation, so that the values
are the same bits: a tensor of float32 or float64 that begins at 0 (or ±inf) and is replaced, never
changed in place.
"""

import builtins
from collections.abc import Callable
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.utilities import rank_zero_warn
from lightning_utilities.core.rank_zero import WarningCache
from torch import Tensor
from torchmetrics import Metric

Reduce = Callable[..., Tensor]
"""`strategy.reduce(tensor, group=…, reduce_op="mean")` over all ranks; may change its argument."""

_WIDE = (torch.float32, torch.float64)
_WARNINGS = WarningCache()
_FUNCTIONS: dict[str, tuple[Callable[..., Any], ...]] = {
    "mean": (torch.mean,),
    "sum": (torch.sum, builtins.sum),
    "min": (torch.min, builtins.min),
    "max": (torch.max, builtins.max),
}
_BEGIN = {"max": float("-inf"), "min": float("inf")}


class LoggedValue:
    """See the module; `Logged` holds one for each hook, name and loader.

    Attributes:
        same: The options that two calls with one key must agree in.
        last: What was logged last, if steps are shown.
        total: The sum, weighted by samples for a mean; the smallest or largest; the Metric object.
        samples: What `total` is weighted with, for a mean.
        computed: The epoch's value if it was asked for since the last call.
        is_reset: Nothing was logged since the last epoch's end.
    """

    __slots__ = (
        *("hook", "name", "prog_bar", "logger", "on_step", "on_epoch", "reduce_fx", "enable_graph"),
        *("add_dataloader_idx", "dataloader_idx", "metric_attribute", "sync_dist", "sync_group"),
        *("rank_zero_only", "options", "kind", "is_tensor", "reduce"),
        *("last", "total", "samples", "computed", "updates", "is_reset", "labels"),
    )

    last: Any
    total: Any
    samples: Any
    computed: Any
    updates: int

    def __init__(
        self,
        *,
        hook: str,
        name: str,
        prog_bar: bool,
        logger: bool,
        on_step: bool,
        on_epoch: bool,
        reduce_fx: str | Callable[..., Any],
        enable_graph: bool,
        add_dataloader_idx: bool,
        dataloader_idx: int | None,
        metric_attribute: str | None,
        sync_dist: bool,
        sync_group: Any,
        rank_zero_only: bool,
        is_tensor: bool,
        reduce: Reduce | None,
    ) -> None:
        self.hook, self.name = hook, name
        self.prog_bar, self.logger = prog_bar, logger
        self.on_step, self.on_epoch = on_step, on_epoch
        self.reduce_fx, self.kind = _reduction(reduce_fx)
        self.enable_graph, self.metric_attribute = enable_graph, metric_attribute
        self.add_dataloader_idx, self.dataloader_idx = add_dataloader_idx, dataloader_idx
        self.sync_dist, self.sync_group = sync_dist, sync_group
        self.rank_zero_only, self.is_tensor = rank_zero_only, is_tensor
        self.reduce = reduce if sync_dist and not rank_zero_only else None
        self.options: tuple[Any, ...] = ()
        suffix = "" if not add_dataloader_idx or dataloader_idx is None else dataloader_idx
        end = f"/dataloader_idx_{suffix}" if suffix != "" else ""
        forked = on_step and on_epoch
        self.labels = (
            name + end,
            (f"{name}_step" if forked else name) + end,
            (f"{name}_epoch" if forked else name) + end,
        )
        self.total = None
        self.is_reset = False
        self._begin()

    @property
    def same(self) -> tuple[Any, ...]:
        """See the class."""
        return (
            *(self.prog_bar, self.logger, self.on_step, self.on_epoch, self.reduce_fx),
            *(self.enable_graph, self.add_dataloader_idx, self.dataloader_idx),
            *(self.metric_attribute, self.sync_dist, self.sync_group, self.rank_zero_only),
        )

    @property
    def place(self) -> str:
        """The hook, with the loader where several are told apart."""
        apart = self.add_dataloader_idx and self.dataloader_idx is not None
        return f"{self.hook}.{self.dataloader_idx}" if apart else self.hook

    def add(self, value: Tensor, samples: int) -> None:
        """Take one value: a detached tensor without dimensions, which nobody changes any more."""
        self.updates += 1
        self.computed = None
        self.is_reset = False
        if value.dtype not in _WIDE:
            value = self._widened(value)
        if self.on_step:
            last = value if self.reduce is None else self._over_ranks(value.clone())
            self.last = last
            if not self.on_epoch:
                self.total = last
                return
        kind = self.kind
        if kind == "mean":
            self.total = self.total + value * samples
            self.samples = self.samples + samples
        elif kind == "sum":
            self.total = self.total + value
        else:
            self.total = self.reduce_fx(self.total, value)

    def add_metric(self, metric: Metric) -> None:
        """Take a torchmetrics object, which gathers by itself.

        Lightning moves it to its device each time but the first, by which it takes over the default
        type of the step's precision; here only where that changes something.
        """
        if self.updates and metric.dtype is not torch.get_default_dtype():
            metric.to(metric.device)
        self.updates += 1
        self.computed = None
        self.is_reset = False
        self.total = metric
        self.last = metric._forward_cache

    def shown(self, on_step: bool) -> Tensor | None:
        """Return what there is to show, at a step or at the epoch's end; on all ranks.

        Raises:
            ValueError: A Metric computed something else than a tensor.
        """
        value: Any = None
        if on_step:
            value = self.last if self.on_step else None
        elif self.on_epoch:
            if self.computed is None:
                self.computed = self._compute()
            value = self.computed
        if value is None:
            return None
        if not isinstance(value, Tensor):
            raise ValueError(
                f"The `.compute()` return of the metric logged as {self.name!r} must be a tensor. "
                f"Found {value}"
            )
        return value if self.enable_graph or not value.requires_grad else value.detach()

    def reset(self) -> None:
        """Begin anew; a Metric object is reset itself."""
        if self.is_tensor:
            self._begin()
        elif self.total is not None:
            self.total.reset()
        self.is_reset = True

    def _begin(self) -> None:
        self.last = self.computed = None
        self.updates = self.samples = 0
        if self.is_tensor:
            self.total = torch.tensor(_BEGIN.get(self.kind, 0.0), dtype=default_dtype())

    def _compute(self) -> Any:
        if not self.is_tensor:
            return self.total.compute()
        if self.updates == 0:
            rank_zero_warn(f"The value of {self.name!r} was asked for before it was logged.")
        if self.reduce is None:
            self._warn_of_ranks()
            total, samples = self.total, self.samples
        else:
            total = self._over_ranks(self.total.clone())
        if self.kind != "mean":
            return total
        if self.reduce is not None:
            # In double precision: the mean of 3 and 4 samples is not 3.
            samples = torch.tensor(float(self.samples), dtype=torch.float64, device=total.device)
            samples = self._over_ranks(samples).to(total.dtype)
        return total / torch.as_tensor(samples, device=total.device)

    def _over_ranks(self, value: Tensor) -> Tensor:
        assert self.reduce is not None
        return self.reduce(value, group=self.sync_group, reduce_op=self.kind)

    def _warn_of_ranks(self) -> None:
        if self.sync_dist or not torch.distributed.is_available():
            return
        if torch.distributed.is_initialized():
            _WARNINGS.warn(
                f"It is recommended to use `self.log({self.name!r}, ..., sync_dist=True)` when "
                "logging on epoch level in distributed setting to accumulate the metric across "
                "devices.",
                category=PossibleUserWarning,
            )

    def _widened(self, value: Tensor) -> Tensor:
        if not torch.is_floating_point(value):
            _WARNINGS.warn(
                f"You called `self.log({self.name!r}, ...)` in your `{self.hook}` but the value "
                f"needs to be floating to be reduced. Converting it to {default_dtype()}. Convert "
                "it yourself to silence this warning."
            )
        return value.to(default_dtype())


def default_dtype() -> torch.dtype:
    """Return torch's default, but float32 at least."""
    dtype = torch.get_default_dtype()
    return dtype if dtype in _WIDE else torch.float32


def _reduction(reduce_fx: str | Callable[..., Any]) -> tuple[Callable[..., Any], str]:
    """Return the function and its kind, "mean", "sum", "min" or "max"."""
    if isinstance(reduce_fx, str):
        kind = reduce_fx.lower().replace("avg", "mean")
        if kind in _FUNCTIONS:
            return _FUNCTIONS[kind][0], kind
    for kind, functions in _FUNCTIONS.items():
        if any(reduce_fx is function for function in functions):
            return functions[functions.index(reduce_fx)], kind
    raise MisconfigurationException(
        "Only `self.log(..., reduce_fx={min,max,mean,sum})` are supported. If you need a custom "
        f"reduction, please log a `torchmetrics.Metric` instance instead. Found: {reduce_fx}"
    )
