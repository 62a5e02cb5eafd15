"""The state of torchmetrics that a module holds: what they have counted, which no state_dict has.

Lightning saves a metric's state only if the metric is persistent, which would change the keys of
the module's state_dict. Here it is kept beside, under the metric's name in the module:

    {"val_accuracy": {"updates": 3, "dtype": "torch.float32",
                      "states": {"tp": tensor(17), "total": tensor(24)}, "more": {}}}

`dtype` is what a metric makes of its inputs, which changes as Lightning moves it. `more` has the
tensors, and counters of its own, that a metric keeps outside its declared states, as MinMaxMetric
and Running do.
"""

import warnings
from collections.abc import Container, Mapping
from typing import Any

import torch
from torchmetrics import Metric

from .plain import NotPlain, on_device, plain


class MetricStates:
    """The metrics that `module` has now, and what each of them counts in."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._places = [
            (
                name,
                metric,
                [*metric._defaults],
                [a for a, v in vars(metric).items() if _more(metric, a, v)],
            )
            for name, metric in module.named_modules()
            if isinstance(metric, Metric)
        ]

    def capture(self) -> dict[str, dict[str, Any]]:
        """Return the states as they are now, in about two microseconds each.

        Tensors are copied, for metrics change theirs in place, but stay on their device; what lies
        in lists is only ever added to.
        """
        captured: dict[str, dict[str, Any]] = {}
        live: list[tuple[dict[str, Any], str]] = []
        for name, metric, states, more in self._places:
            values: dict[str, Any] = {
                "updates": metric._update_count,
                "dtype": metric._dtype,
                "states": {state: getattr(metric, state) for state in states},
                "more": {attribute: getattr(metric, attribute) for attribute in more},
            }
            captured[name] = values
            live += [(group, key) for group in (values["states"], values["more"]) for key in group]
        tensors = [group[key] for group, key in live if isinstance(group[key], torch.Tensor)]
        copies = iter(_copies(tensors))
        for group, key in live:
            value = group[key]
            group[key] = next(copies) if isinstance(value, torch.Tensor) else _listed(value)
        return captured


def to_plain(captured: Mapping[str, dict[str, Any]], *, reset: Container[str] = ()) -> Any:
    """Return what `capture` gave as a checkpoint can hold it; a name in `reset` is a reset metric.

    A metric with a state of another kind is left out, with a warning.
    """
    saved: dict[str, Any] = {}
    for name, state in captured.items():
        state = {**state, "dtype": str(state["dtype"])}
        if name in reset:
            state.update(updates=0, states={}, more={})
        try:
            saved[name] = plain(state)
        except NotPlain as error:
            warnings.warn(
                f"The metric '{name}' keeps {error}, which a checkpoint does not hold: after a "
                "resume it counts anew.",
                stacklevel=2,
            )
    return saved


def restore(module: torch.nn.Module, saved: Mapping[str, dict[str, Any] | None]) -> None:
    """Give the metrics in `module` the states that `to_plain` returned.

    A metric that is not there any more is named in a warning; one that is new is left as it is.
    """
    metrics = {name: m for name, m in module.named_modules() if isinstance(m, Metric)}
    gone = sorted(saved.keys() - metrics.keys())
    if gone:
        warnings.warn(
            f"The checkpoint has the state of metrics that the model has not: {', '.join(gone)}.",
            stacklevel=2,
        )
    for name, metric in metrics.items():
        if name not in saved:
            continue
        metric.reset()
        state = saved[name]
        if state is None:
            continue
        for attribute, value in {**state["states"], **state["more"]}.items():
            # torch: a list state keeps its type, whatever is in it
            setattr(metric, attribute, on_device(value, metric.device))
        metric._update_count = state["updates"]
        if "dtype" in state:
            metric._dtype = getattr(torch, state["dtype"].removeprefix("torch."))


def _more(metric: Metric, attribute: str, value: object) -> bool:
    """Return whether an attribute counts, besides the states: settings are public numbers."""
    if attribute in metric._defaults or attribute == "_update_count":
        return False
    return type(value) is int if attribute.startswith("_") else isinstance(value, torch.Tensor)


def _copies(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    with torch.no_grad():
        return [tensor.clone() for tensor in tensors]


def _listed(state: Any) -> Any:
    return list(state) if isinstance(state, list) else state
