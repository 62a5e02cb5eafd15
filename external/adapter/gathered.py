"""All values that one phase, training or validation, has logged: Lightning's result collection.

As a checkpoint has them, one record per key, in the order in which they were first logged; it is
the record of `external.exact.logged_values`, so that both engines read each other's:

    {"key": "training_step.loss", "fx": "training_step", "name": "loss", "on_epoch": True, …,
     "reduce_fx": "mean", "value": tensor(3.1), "cumulated_batch_size": tensor(24),
     "forward_cache": tensor(0.2), "computed": None, "updates": 6, "has_reset": False}
"""

import builtins
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torchmetrics import Metric

from ..exact.plain import on_device, plain
from .logged_value import LoggedValue, Reduce

Captured = list[tuple[str, LoggedValue, tuple[Any, ...]]]
_DESCRIBED = (
    *("name", "prog_bar", "logger", "on_step", "on_epoch", "enable_graph"),
    *("add_dataloader_idx", "dataloader_idx", "metric_attribute", "sync_dist", "rank_zero_only"),
)


@dataclass
class Shown:
    """What there is to show: to schedulers and stopping, to the loggers, to a progress bar."""

    callback: dict[str, Tensor] = field(default_factory=dict)
    logger: dict[str, Tensor] = field(default_factory=dict)
    progress_bar: dict[str, Tensor] = field(default_factory=dict)

    def update(self, other: "Shown") -> None:
        """Take over what is newer."""
        self.callback.update(other.callback)
        self.logger.update(other.logger)
        self.progress_bar.update(other.progress_bar)


class Gathered(dict[str, LoggedValue]):
    """See the module; keys are `hook.name`, or `hook.name.0` by loader."""

    def __init__(self, *, is_train: bool, make: Callable[..., LoggedValue] = LoggedValue) -> None:
        super().__init__()
        self.is_train, self._make = is_train, make
        self.dataloader_idx: int | None = None
        self.known: dict[tuple[str | None, str, int | None], LoggedValue] = {}
        """The same values, found without putting a text together."""

    def registered(self, options: tuple[Any, ...], value: Any, **described: Any) -> LoggedValue:
        """Return the value that a call with these options goes to, a new one at its first time.

        Args:
            options: As they were given, to know them again.
            value: For its kind.
            described: As LoggedValue takes them.

        Raises:
            MisconfigurationException: It was logged with other options before.
        """
        is_tensor = not isinstance(value, Metric)
        made = self._make(**described, dataloader_idx=self.dataloader_idx, is_tensor=is_tensor)
        hook, name = made.hook, made.name
        logged = self.setdefault(f"{hook}.{name}{made.place.removeprefix(hook)}", made)
        if (logged.same, logged.is_tensor) != (made.same, is_tensor):
            raise MisconfigurationException(
                f"You called `self.log({name}, ...)` twice in `{made.place}` with different "
                "arguments. This is not allowed"
            )
        if not is_tensor:
            logged.total = value
        logged.options = options
        self.known[hook, name, self.dataloader_idx] = logged
        return logged

    def valid(self) -> list[LoggedValue]:
        """Return those that were logged since the last reset, of the loader that runs."""
        index = self.dataloader_idx
        return [v for v in self.values() if not v.is_reset and v.dataloader_idx == index]

    def show(self, *, on_step: bool) -> Shown:
        """Return what there is to show of a step or of an epoch; all ranks must ask."""
        shown, which = Shown(), 1 if on_step else 2
        for logged in self.valid():
            value = logged.shown(on_step)
            if value is None:
                continue
            label = logged.labels[which]
            if logged.logger:
                shown.logger[label] = value
            if self.is_train or not on_step:
                shown.callback[logged.labels[0]] = value
                shown.callback[label] = value
            if logged.prog_bar:
                shown.progress_bar[label] = value
        return shown

    def reset(self, place: str | None = None) -> None:
        """Let all begin anew; with `place`, the tensors that were logged there."""
        for logged in self.values():
            if place is None or (logged.is_tensor and logged.place == place):
                logged.reset()

    def capture(self) -> Captured:
        """Return what is known of each key, in a microsecond each; `records` makes it plain.

        Tensors are not copied, for they are replaced and never changed.
        """
        return [
            (key, v, (v.last, v.total, v.samples, v.computed, v.updates, v.is_reset))
            for key, v in self.items()
        ]

    def restore(
        self,
        records: Sequence[Mapping[str, Any]],
        *,
        metrics: Mapping[str, Metric],
        device: torch.device,
        reduce: Reduce | None,
    ) -> None:
        """Become what the records say; what was gathered is dropped.

        Args:
            records: From `records`, or from `external.exact.logged_values`.
            metrics: The module's torchmetrics objects by name; a record of one that is not there
                is left out, which `metric_states` says.
            device: Of the module.
            reduce: See `Logged`.
        """
        self.clear()
        self.known.clear()
        for record in records:
            is_tensor = record["value"] is not None
            if not is_tensor and record["metric_attribute"] not in metrics:
                continue
            logged = self._make(
                **{name: record[name] for name in _DESCRIBED},
                # a loader is told apart by a suffix there
                hook=record["fx"].partition(".")[0],
                reduce_fx=getattr(torch if record["of_torch"] else builtins, record["reduce_fx"]),
                sync_group=None,
                is_tensor=is_tensor,
                reduce=reduce,
            )
            if is_tensor:
                logged.total = on_device(record["value"], device)
                samples = record["cumulated_batch_size"]
                logged.samples = 0 if samples is None else samples.item()
            else:
                logged.total = metrics[record["metric_attribute"]]
            logged.last = on_device(record["forward_cache"], device)
            logged.computed = on_device(record["computed"], device)
            logged.updates, logged.is_reset = record["updates"], record["has_reset"]
            self[record["key"]] = logged


def records(captured: Captured) -> list[dict[str, Any]]:
    """Return what a checkpoint can hold."""
    kept = [_record(*each) for each in captured if _is_kept(each[1])]
    found: list[dict[str, Any]] = plain(kept)
    return found


def _record(key: str, logged: LoggedValue, changing: tuple[Any, ...]) -> dict[str, Any]:
    last, total, samples, computed, updates, is_reset = changing
    function, is_mean = logged.reduce_fx, logged.is_tensor and logged.kind == "mean"
    values = {
        "value": total if logged.is_tensor else None,
        "cumulated_batch_size": torch.as_tensor(samples) if is_mean else None,
        "forward_cache": last,
        # What was computed is over all ranks, which must not be done twice.
        "computed": computed,
    }
    return {
        "key": key,
        "fx": logged.place,
        **{name: getattr(logged, name) for name in _DESCRIBED},
        "reduce_fx": function.__name__,
        "of_torch": function is getattr(torch, function.__name__),
        **{name: value if isinstance(value, Tensor) else None for name, value in values.items()},
        "updates": updates,
        "has_reset": is_reset,
    }


def _is_kept(logged: LoggedValue) -> bool:
    if logged.sync_group is None:
        return True
    warnings.warn(
        f"self.log({logged.name!r}, sync_dist_group=…): a checkpoint does not hold a process "
        "group, so after a resume its epoch's value is of the remaining batches.",
        stacklevel=2,
    )
    return False
