"""What a setting's dictionary may hold: JSON, as it crosses to the trainer as one word.

Numbers, strings, True, False, None, lists, and dictionaries with string keys. Tuples become
lists here and not on the way, so that both sides hold the same.
"""

from collections.abc import Mapping


def json_object(name: str, value: object) -> dict[str, object]:
    """Return a deep copy of the dictionary `value` that is JSON all through.

    Raises:
        ValueError: It is no dictionary, or something in it has no JSON; the message says where.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} is {value!r}, expected a dictionary such as {{'width': 3}}.")
    return {_key(name, key): json_value(f"{name}[{key!r}]", item) for key, item in value.items()}


def json_value(name: str, value: object) -> object:
    """Return a deep copy of `value` that is JSON all through; `name` is for the message.

    Raises:
        ValueError: Something in it has no JSON; the message says where.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):  # a subclass, such as numpy.float64, becomes the plain type
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return json_object(name, value)
    if isinstance(value, list | tuple):
        return [json_value(f"{name}[{index}]", item) for index, item in enumerate(value)]
    raise ValueError(
        f"{name} is {value!r} of type {type(value).__qualname__}, which has no JSON. "
        "Write it with numbers, strings, True, False, None, lists and dictionaries."
    )


def _key(name: str, key: object) -> str:
    if not isinstance(key, str):
        raise ValueError(f"{name} has the key {key!r}, expected a string. Write {str(key)!r}.")
    return key
