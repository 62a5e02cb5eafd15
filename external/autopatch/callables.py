"""What functions carry with them: variables of the functions around, attributes, defaults, objects.

A new process makes the function again; what it carries is put back into that.
"""

import functools
import types
from typing import Any

from .users import USERS


def parts_of(value: Any) -> dict[str, Any]:
    """Return what a callable carries, by where; empty of one that carries nothing."""
    if isinstance(value, types.MethodType):
        return {"self": value.__self__, "function": value.__func__}
    if isinstance(value, functools.partial):
        return {"function": value.func, "arguments": value.args, "keywords": value.keywords}
    if not isinstance(value, types.FunctionType) or value.__code__.co_filename not in USERS.files:
        return {}
    found = {f"cell {name}": cell.cell_contents for name, cell in _cells(value).items()}
    found |= {f"attribute {name}": each for name, each in vars(value).items()}
    defaults = {"defaults": value.__defaults__, "keyword defaults": value.__kwdefaults__}
    return found | {name: each for name, each in defaults.items() if each}


def put_part(value: Any, part: str, new: Any) -> None:
    """Bind a part to something else, where that is possible."""
    kind, _, name = part.partition(" ")
    if kind == "cell":
        place = value.__code__.co_freevars.index(name)
        value.__closure__[place].cell_contents = new
    elif kind == "attribute":
        setattr(value, name, new)


def _cells(value: types.FunctionType) -> dict[str, Any]:
    pairs = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
    return {name: cell for name, cell in pairs if cell != types.CellType()}
