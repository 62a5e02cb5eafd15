"""Standard output on the way back: what was printed before the position is not printed again."""

import sys
from typing import Any


class HeldOutput:
    """Stands in for `sys.stdout` from `hold` to `let_go`, and passes everything on behind that."""

    def __init__(self) -> None:
        self._stream: Any = None
        self._kept: list[str] | None = None

    def hold(self) -> None:
        """Keep what is printed from now on."""
        if self._kept is None:
            self._stream, self._kept = sys.stdout, []
            sys.stdout = self

    def write(self, text: str) -> int:
        """Keep the text, or write it once output is let go of."""
        if self._kept is None:
            return int(self._stream.write(text))
        self._kept.append(text)
        return len(text)

    def let_go(self, *, print_it: bool) -> None:
        """Print what was kept, or forget it, and hold nothing from now on."""
        kept, self._kept = self._kept, None
        if sys.stdout is self:
            sys.stdout = self._stream
        if print_it and kept:
            self._stream.write("".join(kept))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
