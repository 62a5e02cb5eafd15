"""Where the client of the TCP store has its token from; a file is read again, as it may change."""

from collections.abc import Callable
from pathlib import Path


def token_source(token: str | None, path: Path | None) -> Callable[[], str]:
    """Return what gives the token of the moment.

    Args:
        token: Itself; or
        path: a file with the token on its first line.

    Raises:
        ValueError: Not one of them is given.
        OSError: The file cannot be read, or is empty.
    """
    if (token is None) == (path is None):
        raise ValueError(
            "A TCP store needs a token. Give token_file=PATH, or token=…; one of them."
        )
    if path is None:
        return lambda: token or ""
    _read(path)  # refuses at the start
    return lambda: _read(path)


def _read(path: Path) -> str:
    words = path.read_text(encoding="utf-8").split(maxsplit=1)
    if not words:
        raise OSError(f"Token file '{path}' is empty. Write the service's token into it.")
    return words[0]
