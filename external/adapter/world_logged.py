"""`self.log` in training steps with exact="world": the same for any number of processes.

Each value is kept with the place of its grain. Now and then, at the same batches everywhere, the
processes put theirs together, and take them in the order of the grains as one process would: sums
and means have the same bits, and a step's value is of its whole global batch. A hook that comes
once for a global batch counts where its first grain is, or its last one, and nowhere else. What
torchmetrics count is not among it: see `world_metrics`.
"""

import builtins
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric

from .gathered import Gathered
from .log_phases import Values
from .log_rules import BY_STEP
from .logged import Logged
from .logged_value import LoggedValue

_EVERY = 50
"""Batches after which values are put together where no logger wants them."""
_OF_FIRST = {"on_train_batch_start", "on_before_zero_grad", "optimizer_zero_grad"}
_OF_GRAINS = {"training_step", "on_before_backward", "backward", "on_after_backward"}

Place = tuple[int, int, int]
"""The global batch in its epoch, the grain in it, and how many grains it has."""
Contribution = tuple[int, int, Any, int, torch.dtype]
"""Batch, grain, value, samples and its type."""
Judge = Callable[[LoggedValue, Metric], None]


class GrainValue(LoggedValue):
    """One key of training; see the module.

    Args:
        place: Returns the place of the grain under way.
        judge: Is told of a torchmetrics object, which counts as it likes.
        described: Of `LoggedValue`.

    Attributes:
        waiting: What was logged in this process since all was put together.
    """

    __slots__ = ("_judge", "_place", "waiting")

    def __init__(self, *, place: Callable[[], Place], judge: Judge, **described: Any) -> None:
        self._place, self._judge = place, judge
        self.waiting: list[Contribution] = []
        super().__init__(**described)
        if self.is_tensor:
            self.reduce = None

    def add(self, value: Tensor, samples: int) -> None:
        """Take one value of the grain under way."""
        if self.hook not in BY_STEP:
            super().add(value, samples)
            return
        self.computed = None
        self.is_reset = False
        batch, grain, grains = self._place()
        if self.hook not in _OF_GRAINS and grain != (0 if self.hook in _OF_FIRST else grains - 1):
            return
        self.waiting.append((batch, grain, value.clone(), samples, value.dtype))

    def add_metric(self, metric: Metric) -> None:
        """Take a torchmetrics object, which gathers by itself."""
        self._judge(self, metric)
        super().add_metric(metric)

    def take(self, contributions: Sequence[Contribution], device: torch.device) -> None:
        """Take what all processes logged, in the order of the grains."""
        for _, _, value, samples, dtype in contributions:
            super().add(torch.as_tensor(value, dtype=dtype, device=device), samples)
        if self.on_step and contributions:
            newest = contributions[-1][0]
            batch = [each for each in contributions if each[0] == newest]
            if len(batch) > 1:
                self.last = self._of_batch(batch).to(self.last)
                self.total = self.total if self.on_epoch else self.last

    def _of_batch(self, contributions: Sequence[Contribution]) -> Tensor:
        """Return the value of a global batch, from those of its grains."""
        values = [float(value) for _, _, value, _, _ in contributions]
        samples = [each[3] for each in contributions]
        if self.kind == "mean":
            weighted = sum(v * n for v, n in zip(values, samples, strict=True))
            return torch.tensor(weighted / sum(samples), dtype=torch.float64)
        of: Callable[[list[float]], float] = getattr(builtins, self.kind)  # sum, min or max
        return torch.tensor(of(values), dtype=torch.float64)

    @property
    def described(self) -> dict[str, Any]:
        """What makes the same key in another process."""
        is_torchs = self.reduce_fx is getattr(torch, self.kind)
        names = (
            *("hook", "name", "prog_bar", "logger", "on_step", "on_epoch", "enable_graph"),
            *("add_dataloader_idx", "dataloader_idx", "metric_attribute", "sync_dist"),
            *("rank_zero_only", "is_tensor"),
        )
        return {
            **{name: getattr(self, name) for name in names},
            "reduce_fx": ("torch" if is_torchs else "builtins", self.kind),
        }

    def _begin(self) -> None:
        self.waiting = []
        super()._begin()

    def _warn_of_ranks(self) -> None:
        """Say nothing: it is over all ranks."""


class WorldLogged(Logged):
    """See the module.

    Args:
        world_size: All processes.
        device: Of this one.
        options: Of `Logged`.
    """

    def __init__(self, *, world_size: int, device: torch.device, **options: Any) -> None:
        super().__init__(**options)
        self._world_size, self._device = world_size, device
        self._every = self.log_every_n_steps if self.has_logger else 0
        self.place: Callable[[], Place] = lambda: (0, 0, 1)
        self.judge: Judge = lambda logged, metric: None
        self._make = partial(
            GrainValue,
            place=lambda: self.place(),
            judge=lambda logged, metric: self.judge(logged, metric),
        )
        self._train = self._active = Gathered(is_train=True, make=self._make)

    def fold(self) -> None:
        """Put together what all processes logged in training; all call it at the same batch."""
        own = {
            key: (value.described, value.waiting)
            for key, value in self._train.items()
            if isinstance(value, GrainValue) and value.waiting
        }
        parts: list[Any] = [own]
        if self._world_size > 1:
            plain = {
                key: (described, [(*each[:2], float(each[2]), *each[3:]) for each in waiting])
                for key, (described, waiting) in own.items()
            }
            parts = [None] * self._world_size
            dist.all_gather_object(parts, plain)
        for key in dict.fromkeys(key for part in parts for key in part):
            found = [part[key] for part in parts if key in part]
            value = self._value(key, found[0][0])
            value.waiting = []
            # Several of one grain stay in their order.
            value.take(sorted((c for _, each in found for c in each), key=_place), self._device)

    def _value(self, key: str, described: dict[str, Any]) -> GrainValue:
        """Return the value of a key, which perhaps another process alone has logged."""
        if key not in self._train:
            home, kind = described["reduce_fx"]
            function = getattr({"torch": torch, "builtins": builtins}[home], kind)
            found = {**described, "reduce_fx": function, "sync_group": None, "reduce": None}
            self._train[key] = self._make(**found)
        value = self._train[key]
        assert isinstance(value, GrainValue)
        return value

    def after_batch(self, *, stepped: bool = True, should_stop: bool = False) -> Values | None:
        """Say that a batch is over; now and then all is put together before it is shown."""
        if self._active.is_train and stepped:
            number = self.batches_that_stepped + 1
            if should_stop or number % (self._every or _EVERY) == 0:
                self.fold()
        return super().after_batch(stepped=stepped, should_stop=should_stop)

    def end_batches(self) -> None:
        """Say that the epoch or the validation has no further batch."""
        if self._active.is_train:
            self.fold()
        super().end_batches()

    def begin_validation(self, *, sanity: bool = False) -> None:
        """Say that a validation begins."""
        if not sanity:
            self.fold()
        super().begin_validation(sanity=sanity)

    def capture(self) -> dict[str, Any]:
        """Return all that an unfinished epoch has gathered; of several processes, when they met."""
        if self._world_size == 1:
            self.fold()
        return super().capture()


def _place(contribution: Contribution) -> tuple[int, int]:
    return contribution[:2]
