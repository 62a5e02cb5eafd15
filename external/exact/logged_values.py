"""What `self.log` has gathered of an unfinished epoch: Lightning's result collection, plainly.

One record per logged key, in the order in which they were first logged:

    {"key": "training_step.loss", "fx": "training_step", "name": "loss", "on_epoch": True, …,
     "reduce_fx": "mean", "value": tensor(3.1), "cumulated_batch_size": tensor(24),
     "forward_cache": tensor(0.2), "computed": None, "updates": 6, "has_reset": False}

`value` is None where a torchmetrics.Metric was logged: its state is in `metric_states`.
"""

import builtins
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.connectors.logger_connector.result import (
    _Metadata,
    _ResultCollection,
    _ResultMetric,
    _Sync,
)
from torchmetrics import Metric

from .plain import on_device, plain

_DESCRIBED = (
    *("fx", "name", "prog_bar", "logger", "on_step", "on_epoch", "enable_graph"),
    *("add_dataloader_idx", "dataloader_idx", "metric_attribute"),
)
_COUNTED = ("value", "cumulated_batch_size")
_CHANGING = (*_COUNTED, "_forward_cache", "_computed")

Captured = list[tuple[str, _ResultMetric, tuple[Any, ...], int, bool]]


def capture(results: _ResultCollection) -> Captured:
    """Return what is known of each key, in two microseconds each.

    Tensors are not copied, for Lightning replaces and never changes them.
    """
    return [
        (
            key,
            metric,
            tuple(getattr(metric, name, None) for name in _CHANGING),
            metric._update_count,
            metric.has_reset,
        )
        for key, metric in results.items()
    ]


def to_plain(captured: Captured) -> list[dict[str, Any]]:
    """Return what `capture` gave as records that a checkpoint can hold."""
    records: list[dict[str, Any]] = plain([_record(*each) for each in captured if _is_kept(*each)])
    return records


def logged_metrics(results: _ResultCollection) -> set[str]:
    """Return the names of the module's metrics that were logged as objects."""
    return {str(r.meta.metric_attribute) for r in results.values() if not r.is_tensor}


def restore(
    results: _ResultCollection, records: Sequence[dict[str, Any]], module: LightningModule
) -> None:
    """Make `results` what the records say; what was in it is dropped."""
    results.clear()
    metrics = {name: m for name, m in module.named_modules() if isinstance(m, Metric)}
    for record in records:
        is_tensor = record["value"] is not None
        if not is_tensor and record["metric_attribute"] not in metrics:
            continue  # `metric_states` says so
        results[record["key"]] = _rebuilt(record, module, metrics if not is_tensor else None)


def _record(
    key: str, metric: _ResultMetric, changing: tuple[Any, ...], updates: int, has_reset: bool
) -> dict[str, Any]:
    meta, function = metric.meta, metric.meta.reduce_fx
    return {
        "key": key,
        **{name: getattr(meta, name) for name in _DESCRIBED},
        "reduce_fx": function.__name__,  # mean, sum, min or max
        "of_torch": function is getattr(torch, function.__name__),
        "sync_dist": meta.sync.should,
        "rank_zero_only": meta.sync.rank_zero_only,
        # What was computed is over all ranks, which must not be done twice.
        **{
            name.strip("_"): value if isinstance(value, torch.Tensor) else None
            for name, value in zip(_CHANGING, changing, strict=True)
        },
        "updates": updates,
        "has_reset": has_reset,
    }


def _rebuilt(
    record: dict[str, Any], module: LightningModule, metrics: dict[str, Metric] | None
) -> _ResultMetric:
    meta = _Metadata(
        **{name: record[name] for name in _DESCRIBED},
        reduce_fx=getattr(torch if record["of_torch"] else builtins, record["reduce_fx"]),
    )
    meta.sync = _Sync(
        fn=module.trainer.strategy.reduce,
        _should=record["sync_dist"],
        rank_zero_only=record["rank_zero_only"],
    )
    metric = _ResultMetric(meta, is_tensor=metrics is None)
    if metrics is None:
        for name in _COUNTED:
            if record[name] is not None:
                setattr(metric, name, on_device(record[name], module.device))
    else:
        metric.value = metrics[record["metric_attribute"]]
    metric._forward_cache = on_device(record["forward_cache"], module.device)
    metric._computed = on_device(record["computed"], module.device)
    metric._update_count = record["updates"]
    metric.has_reset = record["has_reset"]
    return metric


def _is_kept(key: str, metric: _ResultMetric, *_: object) -> bool:
    if metric.meta.sync.group is None:
        return True
    warnings.warn(
        f"self.log({metric.meta.name!r}, sync_dist_group=…): a checkpoint does not hold a process "
        "group, so after a resume its epoch's value is of the remaining batches.",
        stacklevel=2,
    )
    return False
