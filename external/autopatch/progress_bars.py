"""tqdm's progress bars: which iterators are theirs."""

from types import GeneratorType
from typing import Any


def is_bar(value: Any) -> bool:
    """Return whether a value is a tqdm."""
    return any(each.__name__ == "tqdm" for each in type(value).__mro__)


def progress_bar(it: Any) -> Any:
    """Return the tqdm whose generator `it` is, or None."""
    if isinstance(it, GeneratorType) and it.gi_code.co_name == "__iter__" and it.gi_frame:
        owner = it.gi_frame.f_locals.get("self")
        return owner if owner is not None and is_bar(owner) else None
    return None


def is_begun(bar: Any) -> bool:
    """Return whether a bar's iterator is known."""
    return getattr(bar, "_curitorch", None) is not None
