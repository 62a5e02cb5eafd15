"""Which numbers and words a setting may hold, and the sentence when it holds another.

Each function returns nothing, and raises ValueError naming the setting, what it holds and what
to write. A setting of None passes where `optional` is True.
"""

import math
from collections.abc import Collection

MAX_SEED = 2**32 - 1


def check_integer(
    name: str, value: object, *, minimum: int, maximum: int | None = None, optional: bool = False
) -> None:
    """Refuse what is not a whole number in minimum … maximum, both included.

    Raises:
        ValueError: It is of another type (True and 1.0 as well), or out of the range.
    """
    if value is None and optional:
        return
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < minimum or (maximum is not None and value > maximum):  # type: ignore[operator]
        above = f"from {minimum} to {maximum}" if maximum is not None else f"of at least {minimum}"
        raise ValueError(
            f"{name} is {value!r}, expected a whole number {above}{_or_none(optional)}."
        )


def check_number(
    name: str, value: object, *, unit: str, zero: bool = False, optional: bool = False
) -> None:
    """Refuse what is not a finite number above 0 (or from 0 on, where `zero`).

    Raises:
        ValueError: It is of another type, negative, infinite or not a number.
    """
    if value is None and optional:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0 or (value == 0 and not zero):  # type: ignore[arg-type,operator]
        least = "of at least 0" if zero else "above 0"
        raise ValueError(
            f"{name} is {value!r}, expected a number of {unit} {least}{_or_none(optional)}."
        )


def check_word(name: str, value: object, words: Collection[str]) -> None:
    """Refuse what is not one of `words`.

    Raises:
        ValueError: It is another word, or no string.
    """
    if value not in words:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(map(repr, words))}.")


def check_text(name: str, value: object, *, expected: str = "a string") -> None:
    """Refuse what is not a string.

    Raises:
        ValueError: It is of another type.
    """
    if not isinstance(value, str):
        raise ValueError(f"{name} is {value!r}, expected {expected}.")


def check_flag(name: str, value: object) -> None:
    """Refuse what is neither True nor False.

    Raises:
        ValueError: It is of another type (0 and "true" as well).
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}, expected True or False.")


def check_target(name: str, value: object, *, example: str) -> None:
    """Refuse what does not name something importable as `package.module:Name`; "" passes.

    Nothing is imported.

    Raises:
        ValueError: It is no string, or not of that form.
    """
    module, colon, target = value.partition(":") if isinstance(value, str) else ("", "", "")
    parts = [*module.split("."), *target.split(".")]
    if value != "" and not (colon and all(part.isidentifier() for part in parts)):
        raise ValueError(
            f"{name} is {value!r}, expected package.module:Name. Write for example {example!r}."
        )


def _or_none(optional: bool) -> str:
    return ", or None" if optional else ""
