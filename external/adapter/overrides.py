"""What a project's class overrides, and where: file and line of each.

overridden(Net(), LightningModule, {"training_step_end"})
[Override(name="training_step_end", place="net.py:12", …), …]
"""

import functools
import inspect
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Override:
    """One name that a class, or an instance, has instead of its base's.

    Attributes:
        name: Of the attribute.
        defined_by: The class whose body has it, or the instance's class.
        module: That class's.
        value: What stands there, as in the class's `vars`: a function, a property, a value.
        place: `file:line`, relative to the working directory where it is below that; the class's
            own where the attribute has none.
    """

    name: str
    defined_by: str
    module: str
    value: Any
    place: str

    @property
    def function(self) -> Any:
        """The function behind it, with `self` as the first parameter; None if there is none."""
        return _function(self.value)


def overridden(subject: Any, base: type, further: Collection[str] = ()) -> list[Override]:
    """Return what `subject` has instead of `base`'s, in the order of its class's lines.

    Args:
        subject: An instance of `base`, or a subclass; an instance's own attributes count if they
            can be called, or are in `further`.
        base: LightningModule or LightningDataModule. What classes above it have is no override.
        further: Names that count although `base` has none like them, such as removed hooks.
    """
    cls = subject if isinstance(subject, type) else type(subject)
    own = [each for each in cls.__mro__ if each not in base.__mro__]
    found: dict[str, Override] = {}
    if not isinstance(subject, type):
        for name, value in vars(subject).items():
            if name in further or (_counts(name, base) and callable(value)):
                found[name] = override(name, cls, value)
    for each in own:
        for name, value in vars(each).items():
            if name in found or not (name in further or _counts(name, base)):
                continue
            if name in further and not hasattr(base, name):
                first = each
            else:  # a mixin behind the base does not override it
                first = next(c for c in cls.__mro__ if name in vars(c))
            if first is each:
                found[name] = override(name, each, value)
    return list(found.values())


def place_of_class(cls: type) -> str:
    """Return where a class is written."""
    try:
        _, line = inspect.getsourcelines(cls)
        return f"{_shown(inspect.getsourcefile(cls) or '?')}:{line}"
    except (OSError, TypeError):  # typed at a prompt
        return cls.__module__


def name_of(cls: type) -> str:
    """Return a class's name, without the function that it was made in."""
    return cls.__qualname__.rpartition("<locals>.")[2]


def override(name: str, cls: type, value: Any) -> Override:
    """Return `cls`'s attribute as what it overrides."""
    return Override(name, name_of(cls), cls.__module__, value, _place(value, cls))


def _counts(name: str, base: type) -> bool:
    """Return whether to define `name` in a subclass overrides something of Lightning's."""
    if name.startswith("__"):
        return False
    if name.startswith("_"):  # nn.Module's own inner workings are torch's affair
        return any(
            name in vars(each) and callable(getattr(each, name))
            for each in base.__mro__
            if each.__module__.startswith("lightning.")
        )
    return hasattr(base, name)


def _function(value: Any) -> Any:
    if isinstance(value, property):
        value = value.fget
    elif isinstance(value, functools.cached_property):
        value = value.func
    elif isinstance(value, staticmethod | classmethod):
        value = value.__func__
    while isinstance(value, functools.partial | functools.partialmethod):
        value = value.func
    value = inspect.unwrap(value) if callable(value) else value
    value = getattr(value, "__func__", value)
    return value if inspect.isfunction(value) else None


def _place(value: Any, cls: type) -> str:
    """Return where `value` was written; or else its class."""
    function = _function(value)
    if function is not None:
        return f"{_shown(function.__code__.co_filename)}:{function.__code__.co_firstlineno}"
    return place_of_class(cls)


def _shown(file: str) -> str:
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
