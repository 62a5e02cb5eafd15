"""A value as one word of a command line, and back: written and read here, by its type hint.

    str         the text as it is                     bool    true, false
    int, float  as Python writes them: 64, 3e-07      Path    the path
    X | None    none, or as X; the text "none" itself is written as "none" in JSON quotes
    list[X], tuple[X, ...], tuple[X, Y], dict         JSON: ["a", ""], {"width": 3}

What would not arrive as it was sent is refused when it is sent.
"""

import json
import os
import types
import typing
from collections.abc import Callable
from pathlib import Path

from .json_value import json_value

NONE = "none"
TRUE = ("true", "yes", "on", "1")
FALSE = ("false", "no", "off", "0")


def to_word(name: str, hint: object, value: object) -> str:
    """Write `value`, of a field `name` with the type `hint`, as one word.

    Raises:
        TypeError: Values of the type `hint` have no word.
        ValueError: `value` is not of that type, or cannot stand on a command line.
    """
    kind, optional = _split(hint)
    metavar(hint)
    if value is None and optional:
        return NONE
    data: object = value
    if _is_json(kind):
        data = json_value(name, value)
        word = _dumps(data)
    elif kind is bool:
        word = "true" if value else "false"
    elif kind is float and isinstance(value, float):
        word = float.__repr__(value)  # numpy's own says np.float64(1.0)
    else:
        word = str(value)
    if optional and kind is str and (word.lower() == NONE or word.startswith('"')):
        word = _dumps(word)
    _check_survives(name, hint, value, data, word)
    return word


def from_word(hint: object, word: str) -> object:
    """Read the word of a value of the type `hint`; the inverse of `to_word`.

    Raises:
        TypeError: Values of the type `hint` have no word.
        ValueError: The word is none of such a value; the message says what is expected.
    """
    kind, optional = _split(hint)
    metavar(hint)
    if optional and word.lower() == NONE:
        return None
    if optional and kind is str and word.startswith('"'):
        return _unquoted(word)
    if _is_json(kind):
        try:
            data = json.loads(word)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{word!r} is not JSON ({error}). Write for example {_example(kind)}."
            ) from None
        return _from_json(kind, data)
    return _PLAIN[kind].read(word)


def metavar(hint: object) -> str:
    """Name the words of the type `hint` for a help text, such as `INTEGER|none`.

    Raises:
        TypeError: Values of the type `hint` have no word.
    """
    kind, optional = _split(hint)
    if not _is_json(kind) and kind not in _PLAIN:
        raise TypeError(
            f"Values of type {hint} have no word on a command line, expected str, int, float, "
            "bool, Path, list, tuple, dict, or one of these with None. Leave the field out."
        )
    return ("JSON" if _is_json(kind) else _PLAIN[kind].metavar) + (f"|{NONE}" if optional else "")


def _split(hint: object) -> tuple[typing.Any, bool]:
    """Split `X | None` into X and True; anything else into itself and False."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        kinds = typing.get_args(hint)
        rest = [kind for kind in kinds if kind is not types.NoneType]
        if len(rest) == 1 and len(kinds) == 2:
            return rest[0], True
    return hint, False


def _is_json(kind: object) -> bool:
    return (typing.get_origin(kind) or kind) in (list, tuple, dict)


def _dumps(data: object) -> str:
    """Write JSON in one line, readable where the system can encode it."""
    text = json.dumps(data, ensure_ascii=False)
    return text if _encodable(text) else json.dumps(data)


def _encodable(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _check_survives(name: str, hint: object, value: object, data: object, word: str) -> None:
    """Refuse a value whose word is read as something else, or cannot be a process's argument."""
    if not _encodable(word):
        raise ValueError(
            f"{name} is {value!r}, which no command line can carry. Write it without NUL and "
            "without half surrogates."
        )
    try:
        kind, _ = _split(hint)
        read = _from_json(kind, data) if _is_json(kind) else from_word(hint, word)
    except ValueError as error:
        raise ValueError(f"{name} is {value!r}: {error}") from error
    nan = isinstance(read, float) and isinstance(value, float) and read != read and value != value
    if read != value and not nan:
        raise ValueError(
            f"{name} is {value!r}, which would arrive as {read!r}. Write it as "
            f"{metavar(hint)} can hold it."
        )


def _unquoted(word: str) -> str:
    try:
        text = json.loads(word)
    except json.JSONDecodeError:
        return word  # somebody's own quote, typed by hand
    return text if isinstance(text, str) else word


def _example(kind: object) -> str:
    return "'{\"width\": 3}'" if (typing.get_origin(kind) or kind) is dict else "'[1, 2]'"


def _from_json(hint: object, data: object) -> object:
    """Give JSON data the type `hint`, through all levels.

    Raises:
        ValueError: It is not of that type.
    """
    kind, optional = _split(hint)
    container, args = typing.get_origin(kind) or kind, typing.get_args(kind)
    if (data is None and optional) or kind in (typing.Any, object):
        return data
    if container is dict and isinstance(data, dict):
        return {key: _from_json(args[1] if args else object, item) for key, item in data.items()}
    if container is list and isinstance(data, list):
        return [_from_json(args[0] if args else object, item) for item in data]
    if container is tuple and isinstance(data, list):
        if not args or args[-1] is ...:
            args = (args[0] if args else object,) * len(data)
        elif len(args) != len(data):
            raise ValueError(f"{data!r} has {len(data)} elements, expected {len(args)}.")
        return tuple(_from_json(each, item) for each, item in zip(args, data, strict=True))
    if kind is float and type(data) is int:
        return float(data)
    if kind in (str, int, float, bool) and type(data) is kind:
        return data
    expected = hint.__name__ if isinstance(hint, type) else hint
    raise ValueError(f"{data!r} is of type {type(data).__name__}, expected {expected}.")


class _Plain(typing.NamedTuple):
    metavar: str
    read: Callable[[str], object]


def _read_bool(word: str) -> bool:
    if word.lower() not in (*TRUE, *FALSE):
        raise ValueError(f"{word!r} is not a truth value. Write true or false.")
    return word.lower() in TRUE


def _read_int(word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise ValueError(f"{word!r} is not a whole number. Write for example 64.") from None


def _read_float(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"{word!r} is not a number. Write for example 3e-7.") from None


_PLAIN: dict[object, _Plain] = {
    str: _Plain("TEXT", str),
    int: _Plain("INTEGER", _read_int),
    float: _Plain("FLOAT", _read_float),
    bool: _Plain("true|false", _read_bool),
    Path: _Plain("PATH", Path),
}
