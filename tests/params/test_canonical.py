import enum
import functools
import subprocess
import sys
from dataclasses import dataclass, field, make_dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curitorch.params import CheckpointParams, TrainerParams
from curitorch.params.canonical import canonical


@dataclass(frozen=True)
class Optimizer:
    rate: Any = 0.1
    decay: Any = 0.0


@dataclass(frozen=True)
class Scheduler:
    rate: Any = 0.1
    decay: Any = 0.0


@dataclass
class Plan:
    first: Any = None
    second: Any = None


class Color(enum.Enum):
    RED = 1


class Number(enum.IntEnum):
    ONE = 1


def double(x):
    return 2 * x


ALL_DIFFERENT = [
    None, True, False, 0, 1, 1.0, -0.0, 0.1, "", "None", "true", "1", "1.0", "é", "\ud800",
    b"1", b"", [], [[]], [1], [1, 2], [2, 1], ["1"], {}, {"a": 1}, {"a": "1"}, {"b": 1}, {1: "a"},
    {"1": "a"},
    {"!set": []}, {"!dict": [[1, "a"]]}, set(), {1}, {"a"}, {(1, 2)}, Path("a"), {"!path": "a"},
    "a", Color.RED, Number.ONE, Color, double, int, len, functools.partial(double, 1),
    functools.partial(double, x=1), Decimal("1"), 1j, range(1), datetime(2020, 1, 1),
    Optimizer(), Scheduler(), Optimizer(1), Optimizer(1.0), Optimizer(True), Optimizer("1"),
    Optimizer(None), Optimizer(0.1, 1), Optimizer(1, 0.1), Plan(Optimizer(1), Optimizer(2)),
    Plan(Optimizer(2), Optimizer(1)), Plan(Optimizer(1), Scheduler(2)), Plan(None, Optimizer()),
    Plan(Optimizer(), None), float("nan"), float("inf"), {"rate": 1}, [Optimizer(1)],
]  # fmt: skip


def test_different_values_have_different_texts():
    texts = [canonical(value) for value in ALL_DIFFERENT]
    assert len(set(texts)) == len(texts)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text() | st.integers() | st.just("!dict"), inner, max_size=3)
        | st.builds(Optimizer, inner, inner)
        | st.builds(Plan, inner, inner)
    ),
    max_leaves=6,
)


@given(plain, plain)
def test_texts_are_equal_exactly_where_values_are(one, other):
    same = repr(_ordered(one)) == repr(_ordered(other))
    assert (canonical(one) == canonical(other)) == same


def _ordered(value):
    """Sort dictionaries, whose order is no part of their value, and tell all else by repr."""
    if isinstance(value, dict):
        return sorted(((_ordered(k), _ordered(v)) for k, v in value.items()), key=repr), "dict"
    if isinstance(value, list):
        return [_ordered(item) for item in value]
    if isinstance(value, Optimizer | Plan):
        return type(value), [_ordered(item) for item in vars(value).values()]
    return value


def test_swapped_values_in_nested_settings_differ():
    one, two = Optimizer(1, 2), Optimizer(2, 1)
    assert canonical(Plan(one, two)) != canonical(Plan(two, one))


def test_the_text_of_our_own_settings_stays_what_it_was():
    """Whoever must change this line throws away every model that was trained before."""
    settings = TrainerParams(model="a:B", model_args={"width": 3, "rate": 3e-7}, epochs=2)
    assert canonical(settings) == (
        '{"!curitorch.params.trainer:TrainerParams": '
        '{"epochs": 2, "model": "a:B", "model_args": {"rate": 3e-07, "width": 3}}}'
    )
    assert canonical(CheckpointParams()) == '{"!curitorch.params.checkpoint:CheckpointParams": {}}'


def test_a_new_field_with_a_default_changes_no_text():
    old = make_dataclass("Settings", [("a", int, 1)])
    new = make_dataclass("Settings", [("a", int, 1), ("b", list, field(default_factory=list))])
    assert canonical(old(2)) == canonical(new(2))
    assert canonical(new(2)) != canonical(new(2, [0]))


def test_only_the_very_default_is_left_out():
    settings = make_dataclass("Settings", [("a", Any, 1)])
    texts = {canonical(settings(value)) for value in (1, True, 1.0, "1", None)}
    assert len(texts) == 5


def test_none_where_it_is_not_the_default_is_written():
    assert "null" in canonical(Optimizer(rate=None))


def test_lists_and_tuples_are_the_same_and_order_in_dictionaries_is_none():
    assert canonical((1, [2])) == canonical([1, (2,)])
    assert canonical({"a": 1, "b": 2}) == canonical({"b": 2, "a": 1})
    assert canonical({1: 1, "b": 2}) == canonical({"b": 2, 1: 1})


def test_numpy_numbers_are_numbers():
    numpy = pytest.importorskip("numpy")
    assert canonical(numpy.int64(3)) == "3"
    assert canonical(numpy.float64(0.5)) == "0.5"


def test_the_text_is_the_same_in_another_process():
    code = (
        "from curitorch.params.canonical import canonical\n"
        "print(canonical({'x': {'c', 'b', 'a', 'é'}, 'f': sorted}))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert texts == {canonical({"x": {"c", "b", "a", "é"}, "f": sorted}) + "\n"}


class Opaque:
    pass


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (Opaque(), "Opaque, which has no text"),
        (lambda x: x, "<lambda>"),
        (functools.partial(lambda x: x), "<lambda>"),
        (Opaque().__str__, "method-wrapper"),
        (iter([]), "list_iterator"),
    ],
)
def test_what_has_no_lasting_text_is_refused_with_its_place(value, sentence):
    with pytest.raises(TypeError) as refusal:
        canonical({"x": [value]}, where="settings.model")
    assert "settings.model['x'][0]" in str(refusal.value)
    assert sentence in str(refusal.value)
    assert "0x" not in str(refusal.value)


@dataclass
class WithRepresentations:
    rate: float = 0.1
    workers: int = 1
    model: Any = None
    hash_representations: dict = field(
        default_factory=lambda: {"workers": None, "model": lambda self, model: type(model).__name__}
    )


def test_nested_settings_with_representations_are_taken_at_their_word():
    assert canonical(WithRepresentations(workers=9)) == canonical(WithRepresentations())
    assert canonical(WithRepresentations(model=Opaque())) != canonical(WithRepresentations())
    assert canonical(WithRepresentations(rate=1.0)) != canonical(WithRepresentations())
