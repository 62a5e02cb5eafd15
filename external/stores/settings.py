r"""Settings of a store as one line: `key=value,key=value`, the same everywhere.

    root=/data/ckpt,keep=3
    root="/data/a,b = \"c\"",keep=3

A value with a comma, a quote, or a blank at its ends stands in double quotes; inside them `\"` and
`\\` mean `"` and `\`. An equals sign needs no quotes. Blanks around keys and values do not count.
"""

import re
from collections.abc import Mapping

_KEY = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*=\s*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"\s*', re.DOTALL)
_PLAIN = re.compile(r"[^,\"]*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


class BadSettings(ValueError):
    """A line of settings cannot be understood; the message says where and what to write."""


def parse_settings(line: str, *, what: str = "Settings") -> dict[str, str]:
    """Return the keys and values of a line.

    Args:
        line: As above; empty is no settings.
        what: Names the line in messages, e.g. the variable that it came from.

    Raises:
        BadSettings: A key without '=', a key twice, or quotes that do not end.
    """
    settings: dict[str, str] = {}
    position = 0
    while position < len(line.rstrip()):
        key = _KEY.match(line, position)
        if key is None:
            rest = line[position:].split(",")[0].strip()
            raise BadSettings(
                f"{what} {line!r} has {rest!r} where a key=value is expected. "
                'Separate them by commas, and quote values with commas: root="/a,b".'
            )
        value, position = _value(line, key.end(), what)
        if key[1] in settings:
            raise BadSettings(f"{what} {line!r} gives {key[1]!r} twice. Give it once.")
        settings[key[1]] = value
    return settings


def write_settings(settings: Mapping[str, str]) -> str:
    """Return the line that `parse_settings` reads as `settings`.

    Raises:
        BadSettings: A key is not a name.
    """
    for key in settings:
        if _KEY.fullmatch(f"{key}=") is None or key != key.strip():
            raise BadSettings(f"{key!r} is not a key. Use letters, digits and '_'.")
    return ",".join(f"{key}={_word(value)}" for key, value in settings.items())


def _value(line: str, start: int, what: str) -> tuple[str, int]:
    """Return the value that begins at `start`, and where the next key may begin."""
    if line[start : start + 1] == '"':
        quoted = _QUOTED.match(line, start)
        if quoted is None:
            raise BadSettings(f"{what} {line!r} has quotes that do not end. Close them with '\"'.")
        value, end = _ESCAPE.sub(r"\1", quoted[1]), quoted.end()
    else:
        plain = _PLAIN.match(line, start)
        end = start if plain is None else plain.end()
        value = line[start:end].strip()
    if end < len(line) and line[end] != ",":
        raise BadSettings(
            f"{what} {line!r} has {line[end:]!r} after a value, expected a comma. "
            'Quote the whole value and write \\" for a quote in it.'
        )
    return value, end + 1


def _word(value: str) -> str:
    if value == value.strip() and not any(character in value for character in ',"'):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
