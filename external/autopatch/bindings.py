"""Which names a function's loops carry from one iteration into the next, and where one is bound."""

import ast
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .source import Source

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def carried_in(body: Sequence[ast.stmt]) -> set[str]:
    """Return the names that an iteration of a loop may find as one before has left them.

    They are bound in the loop, and read there before they are, or not in every iteration and read
    behind the loop.
    """
    found: set[str] = set()
    nodes = list(own_nodes(body))
    for loop in nodes:
        if not isinstance(loop, ast.For | ast.While):
            continue
        inside = list(own_nodes([loop]))
        bound = set(_names(inside, ast.Store))
        certain: set[str] = set()
        read: set[str] = set()
        if isinstance(loop, ast.For):
            certain |= set(_names(own_nodes([loop.target]), ast.Store))
        else:
            read |= set(_names(own_nodes([loop.test]), ast.Load))
        read |= _read_first(loop.body, certain)
        within = {id(each) for each in inside}
        outside = set(_names([each for each in nodes if id(each) not in within], ast.Load))
        found |= bound & (read | (outside - certain))
    return found


def _read_first(body: Sequence[ast.stmt], certain: set[str]) -> set[str]:
    """Return the names that a block reads before it binds them; those that it binds are added."""
    read: set[str] = set()
    for statement in body:
        heads = [each for each in ast.iter_child_nodes(statement) if not _is_block(each)]
        loads = set(_names(own_nodes(heads), ast.Load))
        if isinstance(statement, ast.AugAssign):
            loads |= set(_names(own_nodes([statement.target]), ast.Store))
        read |= loads - certain
        blocks = [getattr(statement, name, []) for name in ("body", "orelse", "finalbody")]
        blocks += [each.body for each in getattr(statement, "handlers", [])]
        blocks += [each.body for each in getattr(statement, "cases", [])]
        stored = set(_names(own_nodes(heads), ast.Store))
        if isinstance(statement, ast.With):
            certain |= stored
            read |= _read_first(statement.body, certain)
        elif isinstance(statement, ast.If):
            branches = [certain | stored, certain | stored]
            read |= _read_first(statement.body, branches[0])
            read |= _read_first(statement.orelse, branches[1])
            certain |= branches[0] & branches[1]
        elif not isinstance(statement, _SCOPES) and any(blocks):
            for block in blocks:
                read |= _read_first(block, certain | stored)
        elif not isinstance(statement, _SCOPES):
            certain |= stored
    return read


def _is_block(node: ast.AST) -> bool:
    return isinstance(node, ast.stmt | ast.excepthandler | ast.match_case)


def own_nodes(roots: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Walk through nodes, but not into functions and classes that they define."""
    stack = list(roots)
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, _SCOPES):
            stack.extend(ast.iter_child_nodes(node))


def _names(nodes: Iterable[ast.AST], context: type[ast.expr_context]) -> Iterator[str]:
    return (
        each.id for each in nodes if isinstance(each, ast.Name) and isinstance(each.ctx, context)
    )


def line_of(source: "Source", name: str) -> int:
    """Return the line of the statement that binds `name` first."""
    lines = [each.line for each in source.statements if name in each.binds]
    return min(lines, default=1)
