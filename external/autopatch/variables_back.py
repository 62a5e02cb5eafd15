"""Giving variables their saved values: those of modules and of running frames."""

import ctypes
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any

from .decoder import Decoder
from .values import MADE_BY_SCRIPT, is_mutable

if TYPE_CHECKING:
    from .tracker import Tracker


def restore_module(
    tracker: "Tracker", saved: dict[str, Any], key: str, wanted: set[str], decoder: Decoder
) -> None:
    """Give the variables of the module `key` their values; `wanted` are bound to something else."""
    namespace = tracker.namespaces[key]
    source = next(each for each in tracker.sources.values() if each.key == key)
    wanted = wanted | source.shared
    for statement in source.functions["<module>", 0]:
        wanted |= statement.in_loop_binds
    for other in tracker.sources.values():
        wanted |= other.attributes  # config.step = …, of an imported module
    namespace.update(decoded(decoder, saved["modules"][key], namespace, wanted))


def decoded(
    decoder: Decoder, saved: dict[str, Any], current: dict[str, Any], wanted: set[str]
) -> dict[str, Any]:
    """Return the values of variables, those that are changed in place included."""
    values = {}
    for name, node in saved.items():
        old = current.get(name)
        if old is None and isinstance(node, dict) and node["k"] in MADE_BY_SCRIPT:
            continue  # of an iteration before; said when it was saved
        if isinstance(node, dict) and node["k"] in ("opaque", "constant", "callable"):
            decoder.decode(node, old)
            continue
        if not (is_mutable(node) or name in wanted):
            if isinstance(node, dict):
                decoder.decode(node, old)  # what is in it
            continue
        value = decoder.decode(node, old)
        if value is not old:
            values[name] = value
    return values


def forget_items(saved: dict[str, Any], names: tuple[str, ...]) -> None:
    """Leave the innermost loop its items: those of another number of ranks were others."""
    entry = saved["entries"][-1]
    for name in names:
        for variables in (entry["variables"], saved["modules"].get(entry["file"], {})):
            if isinstance(variables.get(name), dict):
                variables.pop(name)


def assign(frame: FrameType, values: dict[str, Any], own: dict[str, Any]) -> None:
    """Bind names in a running frame, where they are its own or its module's."""
    if not values:
        return
    if frame.f_code.co_name == "<module>":
        frame.f_globals.update(values)
        return
    local = {name: value for name, value in values.items() if name in own}
    frame.f_globals.update({n: v for n, v in values.items() if n not in own})
    if sys.version_info >= (3, 13):
        frame.f_locals.update(local)
        return
    names = frame.f_locals
    names.update(local)
    ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))
