"""A position of the script: its frames, the loops that they are in, and what their variables hold.

{"schema": 1, "sources": {"train.py": "xxh3:…"}, "entries": [{"file": "train.py", "function":
 ["<module>", 0], "chain": ["train.py:14", "train.py:19"], "place": null, "loops": {…},
 "variables": {…}}], "modules": {"train.py": {…}}, "trained": […], "steps": 120, "rng": {…},
 "shared": [tensors]}
"""

import inspect
import sys
import threading
from types import FrameType, FunctionType, GeneratorType, ModuleType
from typing import Any

import torch

from . import class_attributes, generators, iterators
from .bindings import line_of
from .encoder import Encoder
from .findings import Findings
from .kinds_of_values import is_of_the_process
from .rewriting import LOOP
from .source import Source, Statement
from .tracker import Tracker, loop_in, place_of, users_frames
from .values import MADE_BY_SCRIPT

SCHEMA = 1
_PASS_THROUGH = (
    *("click", "absl", "hydra", "fire", "typer", "runpy", "functools", "contextlib"),
    *("torch.distributed.elastic", "torch.utils._contextlib", "curitorch", "importlib"),
    *("wrapt", "torch.nn.modules.module", "torch.autograd.grad_mode"),
)


def take(
    tracker: Tracker, frame: FrameType, number: int, encoder: Encoder, findings: Findings
) -> dict[str, Any]:
    """Return the position of `frame`, in which the loop `number` begins an iteration."""
    frames = users_frames(tracker, frame)[::-1]
    _check_between(tracker, frame, findings)
    by_key = {source.key: source for source in tracker.sources.values()}
    modules = {
        key: _variables(by_key[key], "<module>", namespace, encoder, findings)
        for key, namespace in tracker.namespaces.items()
    }
    places = []
    for each in frames:
        inner = each is frame
        statement = tracker.statements[number] if inner else tracker.statement_at(each)
        places.append((each, statement, entry(tracker, each, statement, encoder, findings, inner)))
    for each, statement, own in places:  # whose generators refer to what is said by now
        add_loops(own, tracker, each, statement, encoder, findings)
    return {
        "schema": SCHEMA,
        "sources": {source.key: source.checksum for source in tracker.sources.values()},
        "modules": modules,
        "classes": class_attributes.take(tracker, encoder),
        "entries": [own for *_, own in places],
        "trained": [tracker.identity(each) for each in sorted(tracker.trained)],
        "steps": tracker.steps,
        "rng": generators.take(),
        "shared": encoder.shared,
    }


def entry(
    tracker: Tracker,
    frame: FrameType,
    statement: Statement | None,
    encoder: Encoder,
    findings: Findings,
    inner: bool,
) -> dict[str, Any]:
    """Return what is saved of one frame, but for its loops."""
    code = frame.f_code
    source = tracker.sources[code.co_filename]
    where = f"{source.path}:{frame.f_lineno}"
    if statement is None or (code.co_name.startswith("<") and code.co_name != "<module>"):
        findings.add(where, f"a loop inside {code.co_name} cannot be entered again")
    chain = statement.chain() if statement is not None else []
    at_module = code.co_name == "<module>"
    return {
        "file": source.key,
        "function": [code.co_name, 0 if at_module else code.co_firstlineno],
        "chain": [tracker.identity(each.number) for each in chain],
        "place": None if inner else place_of(frame),
        "loops": {},
        "variables": {}
        if at_module
        else _variables(source, code.co_name, dict(frame.f_locals), encoder, findings),
    }


def add_loops(
    own: dict[str, Any],
    tracker: Tracker,
    frame: FrameType,
    statement: Statement | None,
    encoder: Encoder,
    findings: Findings,
) -> None:
    """Add to what is saved of a frame where the loops around its statement are."""
    source = tracker.sources[frame.f_code.co_filename]
    for each in statement.chain() if statement is not None else []:
        if each.branch.startswith(("handler", "case", "finalbody")):
            findings.add(
                f"{source.path}:{each.line}", f"a {each.branch} branch cannot be entered again"
            )
        loop = loop_in(frame, each.number) if each.kind == "For" else None
        if loop is not None:
            try:
                node = iterators.describe(loop.it, loop.begun, encoder.encode)
            except iterators.NotDescribable as error:
                findings.add(f"{source.path}:{each.line}", f"a loop over {error}")
                continue
            if node["k"] == "counted":
                findings.add(
                    f"{source.path}:{each.line}",
                    f"a loop over {type(loop.it.it).__name__} goes on by taking its first items "
                    "again, which is exact only if they are the same",
                )
            own["loops"][tracker.identity(each.number)] = {
                "at": node,
                "rng": loop.rng if node["k"] == "counted" else None,
            }


def of_generator(
    tracker: Tracker, generator: Any, encoder: Encoder, findings: Findings
) -> dict[str, Any]:
    """Return where a user's generator stands: at one of its `yield`s, at its beginning or end."""
    state = inspect.getgeneratorstate(generator)
    if state in (inspect.GEN_CREATED, inspect.GEN_CLOSED):
        return {"state": state}
    frame = generator.gi_frame
    if state == inspect.GEN_RUNNING or generator.gi_yieldfrom is not None:
        raise iterators.NotDescribable(f"the generator {generator.__qualname__}, inside another")
    statement = tracker.statement_at(frame)
    own = entry(tracker, frame, statement, encoder, findings, False)
    add_loops(own, tracker, frame, statement, encoder, findings)
    return {"state": state, "entry": own}


def _variables(
    source: Source,
    function: str,
    namespace: dict[str, Any],
    encoder: Encoder,
    findings: Findings,
) -> dict[str, Any]:
    found = {}
    carried = source.carried.get(function, set())
    for name, value in sorted(namespace.items(), key=_carries_others):
        if name.startswith(("__", LOOP)) or isinstance(value, ModuleType | iterators.Loop):
            continue
        del encoder.unknown[:]
        node = found[name] = encoder.encode(value)
        lost = isinstance(node, dict) and node["k"] == "opaque" and name in carried
        if lost and not encoder.unknown and not is_of_the_process(value):
            encoder.unknown.append(f"{name!r} is a {node['t']}, which cannot be saved")
        for what in encoder.unknown:
            findings.add(f"{source.path}:{line_of(source, name)}", what)
    return found


def _carries_others(variable: tuple[str, Any]) -> bool:
    """Return whether a value is one that carries those of other variables, which come first."""
    return isinstance(variable[1], (GeneratorType, FunctionType))


def _check_between(tracker: Tracker, frame: FrameType, findings: Findings) -> None:
    """Note libraries that call the script from loops of their own."""
    each: FrameType | None = frame
    reached = users_frames(tracker, frame)[-1]
    while each is not None and each is not reached:
        name = str(each.f_globals.get("__name__", ""))
        if each.f_code.co_filename not in tracker.sources and not name.startswith(_PASS_THROUGH):
            findings.add(
                f"{each.f_code.co_filename}:{each.f_lineno}",
                f"{name} calls the script, and cannot be entered again where it was",
            )
        each = each.f_back


def check_made_in_loop(
    tracker: Tracker, number: int, state: dict[str, Any], findings: Findings
) -> None:
    """Note objects that an iteration of the loop makes: at its beginning a new process has none."""
    loop = tracker.statements[number]
    assert loop.source is not None
    inner = state["entries"][-1]
    own = {**state["modules"].get(inner["file"], {}), **inner["variables"]}
    for name in sorted(loop.in_loop_binds):
        node = own.get(name)
        if _is_made(node):
            findings.add(
                f"{loop.source.path}:{loop.line}",
                f"{name!r} is made in the loop, and what the last iteration made is not kept",
            )


def can_be_reached(tracker: Tracker, state: dict[str, Any], findings: Findings) -> bool:
    """Return whether a new process can get there: without training what it needs on the way."""
    for entry in state["entries"]:
        numbers = [tracker.number(each) for each in entry["chain"]]
        chain = [tracker.statements[each] for each in numbers if each is not None]
        variables = {**state["modules"].get(entry["file"], {}), **entry["variables"]}
        for each in chain:
            assert each.source is not None
            for other in each.source.statements:
                if other.block == each.block and other.number < each.number:
                    made = [name for name in other.binds if _is_made(variables.get(name))]
                    if other.number in tracker.trained and made:
                        findings.add(
                            f"{each.source.path}:{other.line}",
                            f"it trains and makes {made[0]!r}, so nothing after it can be saved; "
                            "an interruption there goes back into it",
                        )
                        return False
            if each.kind in ("For", "While"):
                return True
    return True


def _is_made(node: Any) -> bool:
    return isinstance(node, dict) and node["k"] in MADE_BY_SCRIPT and "loader" not in node


def check_optimizers(known: list[torch.optim.Optimizer], encoder: Encoder, at: Findings) -> None:
    """Note optimizers that no variable of the script leads to."""
    for each in known:
        if id(each) not in encoder.optimizers and sys.getrefcount(each) > 3:
            at.add("", f"an optimizer {type(each).__name__} that no variable leads to")


def check_threads(tracker: Tracker, findings: Findings) -> None:
    """Note threads that run the user's functions: what they are doing is not saved."""
    for thread in threading.enumerate():
        act = getattr(thread, "_target", None) or type(thread).run
        code = getattr(inspect.unwrap(act), "__code__", None)
        if code is not None and code.co_filename in tracker.sources and thread.is_alive():
            findings.add(
                f"{code.co_filename}:{code.co_firstlineno}",
                f"a thread runs {code.co_qualname}, and where it is cannot be saved",
            )
