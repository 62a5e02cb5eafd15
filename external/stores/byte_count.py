"""Numbers of bytes as people write them: `50GB`, `500M`, `1.5 GiB`, `4096`."""

import re

_COUNT = re.compile(r"\s*([0-9]{1,20}(?:\.[0-9]{1,20})?)\s*(?:([kmgt])(i?))?b?\s*", re.IGNORECASE)
_MOST = 2**62


def parse_bytes(text: str) -> int:
    """Return the number of bytes that `text` means: `k`, `M`, `G`, `T` are powers of 1000.

    With an `i`, as in `GiB`, they are powers of 1024; the `B` may be left out.

    Raises:
        ValueError: It is no such number, less than 1, or beyond 62 bits.
    """
    match = _COUNT.fullmatch(text)
    if match:
        power = " kmgt".index((match[2] or " ").lower())
        number = float(match[1]) if "." in match[1] else int(match[1])
        count = int(number * (1024 if match[3] else 1000) ** power)
        if 1 <= count < _MOST:
            return count
    raise ValueError(f"{text!r} is not a number of bytes. Write 500M, 20GB or 8GiB, for example.")
