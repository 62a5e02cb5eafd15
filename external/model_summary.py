"""What a model is made of, as plain data: its modules with their parameters, and the sums.

    {"type": "Net", "parameters": 650, "trainable": 640, "bytes": 2600, "layers": [
        {"name": "body", "type": "Sequential", "parameters": 640, "trainable": 640, "depth": 1,
         "in": [32, 64], "out": [32, 10]}, …]}

The shapes are there where the model has an `example_input_array`: Lightning's own summary runs it
once, in evaluation mode. Nothing is run otherwise, and no random number is drawn for good.
"""

import logging
from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.model_summary.model_summary import ModelSummary
from torch.nn import Module, Parameter
from torch.nn.parameter import is_lazy

from .exact.randomness import seeded_apart

DEPTH = 2
LIMIT = 200  # modules; a line of the journal is read whole


def summarize(model: Module, *, depth: int = DEPTH, limit: int = LIMIT) -> dict[str, Any]:
    """Return the modules of `model` in the order of their definition, down to `depth`.

    Args:
        model: The model. Parameters that are shared count once in the sums, as they do in every
            module that has them; those that have no shape yet (`LazyLinear`) count as 0.
        depth: How deep: 1 are the model's own attributes.
        limit: At most so many modules; the sums are over all.
    """
    found = list(model.named_modules())
    shown = [(name, module) for name, module in found if name and name.count(".") < depth]
    shapes = _shapes(model, depth)
    return {
        "type": type(model).__name__,
        **_sums(model.parameters()),
        "bytes": sum(0 if is_lazy(p) else p.nbytes for p in model.parameters()),
        "modules": len(found) - 1,
        "layers": [
            {
                "name": name,
                "type": type(module).__name__,
                **_sums(module.parameters()),
                "depth": name.count(".") + 1,
                **shapes.get(name, {}),
            }
            for name, module in shown[:limit]
        ],
    }


def _shapes(model: Module, depth: int) -> dict[str, dict[str, Any]]:
    """Return what went into each module and came out, for a model that knows an example."""
    if not isinstance(model, LightningModule) or model.example_input_array is None:
        return {}
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.random.fork_rng(), seeded_apart(0):
            summary = ModelSummary(model, max_depth=depth)
    except Exception as error:  # a user's forward may raise anything, and training begins
        for module, training in modes:
            module.training = training
        logging.getLogger(__name__).warning(
            "The model's summary has no shapes: its example_input_array led to %s: %s",
            type(error).__name__,
            error,
        )
        return {}
    sizes = zip(summary.layer_names, summary.in_sizes, summary.out_sizes, strict=True)
    known = {name: {"in": given, "out": made} for name, given, made in sizes}
    return {
        name: {at: shape for at, shape in each.items() if isinstance(shape, list)}
        for name, each in known.items()
    }


def _sums(parameters: Iterator[Parameter]) -> dict[str, int]:
    counts = [(_count(each), each.requires_grad) for each in parameters]
    return {
        "parameters": sum(count for count, _ in counts),
        "trainable": sum(count for count, learns in counts if learns),
    }


def _count(parameter: Parameter) -> int:
    return 0 if is_lazy(parameter) else parameter.numel()
