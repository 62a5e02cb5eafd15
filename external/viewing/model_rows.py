"""What a model is made of, as reports and notebooks tell it: a headline, and a row per module."""

from collections.abc import Mapping
from typing import Any


def headline(summary: Mapping[str, Any]) -> str:
    """Return a model summary in one line: its type and its sums."""
    return (
        f"{summary['type']}: {summary['parameters']:,} parameters, {summary['trainable']:,} "
        f"trainable, {_size(summary['bytes'])}, {summary['modules']} modules"
    )


def layer_rows(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row per module: `layer`, indented by its depth, `type`, shapes, parameters.

    The shapes `in` and `out` are there if the model had an `example_input_array`.
    """
    rows = []
    for each in summary["layers"]:
        shapes = {at: _shape(each[at]) for at in ("in", "out") if each.get(at) is not None}
        rows.append(
            {
                "layer": "\N{NO-BREAK SPACE}" * 4 * (each["depth"] - 1) + each["name"],
                "type": each["type"],
                **shapes,
                "parameters": each["parameters"],
                "trainable": each["trainable"],
            }
        )
    return rows


def _shape(shape: Any) -> str:
    """Return the sizes with crosses between them; several tensors with commas."""
    if shape and all(isinstance(size, int) for size in shape):
        return " \N{MULTIPLICATION SIGN} ".join(map(str, shape))
    return ", ".join(_shape(part) if isinstance(part, list) else str(part) for part in shape)


def _size(size: int) -> str:
    return f"{size / 1e6:.3g} MB" if size >= 10_000 else f"{size:,} bytes"
