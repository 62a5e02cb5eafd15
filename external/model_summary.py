"""What a model is made of, as plain data: its modules with their parameters, and the sums.

    {"type": "Net", "parameters": 650, "trainable": 640, "bytes": 2600, "layers": [
        {"name": "body", "type": "Sequential", "parameters": 640, "trainable": 640, "depth": 1}, …]}

Nothing is run: no forward pass, which would draw random numbers or wait for other ranks.
"""

from collections.abc import Iterator
from typing import Any

from torch.nn import Module, Parameter
from torch.nn.parameter import is_lazy

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
            }
            for name, module in shown[:limit]
        ],
    }


def _sums(parameters: Iterator[Parameter]) -> dict[str, int]:
    counts = [(_count(each), each.requires_grad) for each in parameters]
    return {
        "parameters": sum(count for count, _ in counts),
        "trainable": sum(count for count, learns in counts if learns),
    }


def _count(parameter: Parameter) -> int:
    return 0 if is_lazy(parameter) else parameter.numel()
