"""A rewritten file of the user's: its statements, and which of them is around a place."""

import bisect
from dataclasses import dataclass, field
from types import CodeType


@dataclass
class Statement:
    """A statement of a user's file: `number` in it, and where it stands."""

    number: int
    kind: str
    line: int
    span: tuple[tuple[int, int], tuple[int, int]]
    block: int
    parent: "Statement | None"
    binds: tuple[str, ...] = ()  # names, and "name.attribute"
    receiver: str = ""  # x in a statement x.method(…)
    branch: str = ""  # of its parent: body, orelse, …
    targets: tuple[str, ...] = ()  # of `for`: what an item is bound to
    in_loop_binds: frozenset[str] = frozenset()  # of loops: names bound anywhere inside
    source: "Source | None" = field(default=None, repr=False)

    def chain(self) -> "list[Statement]":
        """Return the statements around it in its function, outermost first, and itself."""
        found: list[Statement] = []
        each: Statement | None = self
        while each is not None:
            found.append(each)
            each = each.parent
        return found[::-1]


@dataclass
class Source:
    """A rewritten file. `key` names it wherever it lies; `checksum` is of its text."""

    path: str
    key: str
    checksum: str
    statements: list[Statement] = field(default_factory=list)
    attributes: set[str] = field(default_factory=set)  # stored outside of constructors
    shared: set[str] = field(default_factory=set)  # declared global or nonlocal
    carried: dict[str, set[str]] = field(default_factory=dict)  # by loops, per function's name
    functions: dict[tuple[str, int], "list[Statement]"] = field(default_factory=dict)

    def innermost(self, code: CodeType, line: int, column: int) -> Statement | None:
        """Return the innermost statement of the function `code` around a place."""
        own = self.functions.get(function_key(code), [])
        found = None
        starts = [each.span[0] for each in own]
        for each in own[: bisect.bisect_right(starts, (line, column))]:
            if each.span[1] >= (line, column):
                found = each
        return found


def function_key(code: CodeType) -> tuple[str, int]:
    """Return what the functions of a file are told apart by."""
    return (code.co_name, 0 if code.co_name == "<module>" else code.co_firstlineno)
