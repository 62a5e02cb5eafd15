"""curifactory's reporters, declared for type checkers.

Documented in curifactory itself; at run time there are its own, see curifactory_api.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any

class Reportable:
    """The base of every reporter; `name` must not hold a '/'."""

    name: str | None
    group: str | None

    def __init__(self, name: str | None = None, group: str | None = None) -> None: ...
    def html(self) -> str | list[str]: ...
    def render(self) -> None: ...

class HTMLReporter(Reportable):
    """Some HTML."""

    def __init__(
        self,
        html_string: str | list[str],
        name: str | None = None,
        group: str | None = None,
    ) -> None: ...

class JsonReporter(Reportable):
    """A dictionary."""

    def __init__(
        self,
        dictionary: Mapping[str, Any],
        name: str | None = None,
        group: str | None = None,
    ) -> None: ...

class DFReporter(Reportable):
    """A pandas DataFrame."""

    def __init__(
        self,
        df: object,
        name: str | None = None,
        group: str | None = None,
        float_prec: int = 4,
    ) -> None: ...

class FigureReporter(Reportable):
    """A matplotlib figure."""

    def __init__(
        self,
        fig: object,
        name: str | None = None,
        group: str | None = None,
        **savefig_kwargs: Any,
    ) -> None: ...

class LinePlotReporter(Reportable):
    """Lines, by their names where `y` and `x` are dictionaries."""

    def __init__(
        self,
        y: Mapping[str, Sequence[float]] | Sequence[float],
        x: Mapping[str, Sequence[float]] | Sequence[float] | None = None,
        name: str | None = None,
        group: str | None = None,
        plot_kwargs: Mapping[str, Any] = ...,
        savefig_kwargs: Mapping[str, Any] = ...,
    ) -> None: ...
