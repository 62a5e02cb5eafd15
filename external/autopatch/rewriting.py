"""The user's source, rewritten so that a program says where it is and can get there again.

    for x in data:                 if ct.live or ct.run(7):
        work(x)           ->           for x in (_loop_7 := ct.track(data, 7)).it:
                                           if ct.due: ct.tick(7)
                                           if ct.live or ct.run(8):
                                               work(x)

While `ct.live`, a statement costs two look-ups of names. What the other calls do: see `tracker`.
Line numbers stay what they are.
"""

import ast
from typing import Any

from .bindings import carried_in, own_nodes
from .source import Source, Statement

CT = "__curitorch__"
LOOP = "_curitorch_loop_"
ANY = "*"
_LEFT_ALONE = {"forward", "__getitem__", "__getitems__", "__len__", "collate", "collate_fn"}
_COMPILED = ("compile", "jit", "script")
_GUARDED = (
    *(ast.Expr, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Delete, ast.Assert),
    *(ast.For, ast.While, ast.If, ast.With, ast.Try, ast.Match),
)


class Rewriter:
    """Rewrites one file; its statements are numbered from `first` on."""

    def __init__(self, source: Source, first: int) -> None:
        self.source = source
        self.first = first
        self._blocks = 0
        self._function: list[Statement] = []

    def rewrite(self, tree: ast.Module) -> ast.Module:
        """Return the tree, changed in place."""
        self._function = self.source.functions.setdefault(("<module>", 0), [])
        self._note_carried("<module>", tree.body)
        for node in own_nodes(tree.body):
            if isinstance(node, ast.For | ast.While):
                self.source.attributes.update(_stored_attributes(node))
        tree.body = self._block(tree.body, None, "body", in_class=False)
        return ast.fix_missing_locations(tree)

    def _block(
        self, body: list[ast.stmt], parent: Statement | None, branch: str, *, in_class: bool
    ) -> list[ast.stmt]:
        self._blocks += 1
        block = self._blocks
        found: list[ast.stmt] = []
        for position, node in enumerate(body):
            found.append(self._statement(node, parent, branch, block, position, in_class=in_class))
        return found

    def _statement(
        self,
        node: ast.stmt,
        parent: Statement | None,
        branch: str,
        block: int,
        position: int,
        *,
        in_class: bool,
    ) -> ast.stmt:
        if isinstance(node, ast.FunctionDef):
            self._define(node, in_class=in_class)
            return node
        if isinstance(node, ast.ClassDef):
            node.body = [self._member(each) for each in node.body]
            return node
        if isinstance(node, ast.Global | ast.Nonlocal):
            self.source.shared.update(node.names)
        if in_class or isinstance(node, ast.Import | ast.ImportFrom | ast.Global | ast.Nonlocal):
            return node
        if position == 0 and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return node  # may be a docstring
        statement = self._record(node, parent, branch, block)
        self._children(node, statement)
        return self._guarded(node, statement)

    def _member(self, node: ast.stmt) -> ast.stmt:
        """Return a statement of a class's body: only its functions are rewritten."""
        if isinstance(node, ast.FunctionDef):
            self._define(node, in_class=True)
        elif isinstance(node, ast.ClassDef):
            node.body = [self._member(each) for each in node.body]
        return node

    def _define(self, node: ast.FunctionDef, *, in_class: bool) -> None:
        constructor = in_class and node.name in ("__init__", "__new__", "__post_init__")
        if not constructor:
            self.source.attributes.update(_stored_attributes(node))
        decorators = " ".join(ast.unparse(each) for each in node.decorator_list)
        if node.name in _LEFT_ALONE or any(word in decorators for word in _COMPILED):
            return
        line = min([node.lineno, *(each.lineno for each in node.decorator_list)])
        self._note_carried(node.name, node.body)
        before = self._function
        self._function = self.source.functions.setdefault((node.name, line), [])
        node.body = self._block(node.body, None, "body", in_class=False)
        self._function = before

    def _note_carried(self, function: str, body: list[ast.stmt]) -> None:
        self.source.carried.setdefault(function, set()).update(carried_in(body))

    def _record(
        self, node: ast.stmt, parent: Statement | None, branch: str, block: int
    ) -> Statement:
        end = (node.end_lineno or node.lineno, node.end_col_offset or 0)
        looped = isinstance(node, ast.For | ast.While)
        statement = Statement(
            number=self.first + len(self.source.statements),
            kind=type(node).__name__,
            line=node.lineno,
            span=((node.lineno, node.col_offset), end),
            block=block,
            parent=parent,
            binds=tuple(_bound(node)),
            receiver=_receiver(node),
            branch=branch,
            targets=tuple(_bound(node.target)) if isinstance(node, ast.For) else (),
            in_loop_binds=frozenset(_bound(node)) if looped else frozenset(),
            source=self.source,
        )
        self.source.statements.append(statement)
        self._function.append(statement)
        return statement

    def _children(self, node: ast.stmt, statement: Statement) -> None:
        """Rewrite the blocks of a compound statement, and its head."""
        for branch in ("body", "orelse", "finalbody"):
            inner = getattr(node, branch, None)
            if inner:
                setattr(node, branch, self._block(inner, statement, branch, in_class=False))
        if isinstance(node, ast.Try):
            for number, handler in enumerate(node.handlers):
                handler.body = self._block(
                    handler.body, statement, f"handler {number}", in_class=False
                )
        if isinstance(node, ast.Match):
            for number, case in enumerate(node.cases):
                case.body = self._block(case.body, statement, f"case {number}", in_class=False)
        number = statement.number
        if isinstance(node, ast.For):
            tracked = _call("track", number, node.iter, first=node.iter)
            name = ast.Name(f"{LOOP}{number}", ast.Store())
            node.iter = _at(
                ast.Attribute(ast.NamedExpr(name, tracked), "it", ast.Load()), node.iter
            )
        if isinstance(node, ast.For | ast.While):
            tick = ast.If(_flag("due", node), [ast.Expr(_call("tick", number, node))], [])
            node.body.insert(0, _at(tick, node.body[0]))
        if isinstance(node, ast.While):
            forced = ast.BoolOp(
                ast.And(), [ast.UnaryOp(ast.Not(), _flag("live", node)), _call("way", number, node)]
            )
            node.test = _at(ast.BoolOp(ast.Or(), [forced, node.test]), node.test)
        if isinstance(node, ast.If):
            unknown = ast.Compare(_call("way", number, node), [ast.Is()], [ast.Constant(None)])
            free = ast.BoolOp(ast.Or(), [_flag("live", node), unknown])
            node.test = _at(ast.IfExp(free, node.test, _call("way", number, node)), node.test)

    def _guarded(self, node: ast.stmt, statement: Statement) -> ast.stmt:
        if not isinstance(node, _GUARDED):
            return node
        test = ast.BoolOp(ast.Or(), [_flag("live", node), _call("run", statement.number, node)])
        guarded: ast.stmt = _at(ast.If(test, [node], []), node)
        return guarded


def _flag(name: str, at: ast.AST) -> Any:
    return _at(ast.Attribute(ast.Name(CT, ast.Load()), name, ast.Load()), at)


def _call(name: str, number: int, at: ast.AST, *, first: ast.expr | None = None) -> Any:
    arguments: list[ast.expr] = [first] if first is not None else []
    return _at(ast.Call(_flag(name, at), [*arguments, ast.Constant(number)], []), at)


def _at(node: Any, place: ast.AST) -> Any:
    """Give `node`, and what is new in it, the place of another."""
    for each in ast.walk(node):
        if "lineno" in each._attributes and not hasattr(each, "lineno"):
            ast.copy_location(each, place)
    return node


def _bound(node: ast.AST) -> list[str]:
    """Return the names that a statement binds, and `name.attribute` where it stores one."""
    names: dict[str, None] = {}
    stack: list[ast.AST] = [node]
    while stack:
        each = stack.pop()
        if isinstance(each, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names[each.name] = None
            continue
        if isinstance(each, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp):
            continue
        if isinstance(each, ast.Import | ast.ImportFrom):
            names.update(dict.fromkeys((a.asname or a.name).split(".")[0] for a in each.names))
        if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
            names[each.id] = None
        if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store):
            names[ast.unparse(each)] = None
        stack.extend(ast.iter_child_nodes(each))
    return [name for name in names if not name.startswith("__curitorch")]


def _receiver(node: ast.stmt) -> str:
    """Return x of a statement x.method(…), dotted."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        called = node.value.func
        if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name | ast.Attribute):
            return ast.unparse(called.value)
    return ""


def _stored_attributes(node: ast.AST) -> set[str]:
    """Return the attributes that are stored in a node; "*" if that may be any."""
    found: set[str] = set()
    for each in ast.walk(node):
        if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store):
            found.add(each.attr)
        if isinstance(each, ast.Name) and each.id in ("setattr", "vars", "delattr"):
            found.add(ANY)
        if isinstance(each, ast.Attribute) and each.attr == "__dict__":
            found.add(ANY)
        if isinstance(each, ast.Nonlocal):
            found.update(each.names)  # of functions that a function has made
    return found
