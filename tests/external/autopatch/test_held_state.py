"""The last clean state in memory: a copy of its own, in memory that is used again."""

import pytest
import torch

from curitorch.external.autopatch import held_state
from curitorch.external.autopatch.held_state import HeldState


def state_of(number):
    weight = torch.full((3, 4), float(number))
    return {
        "shared": [weight, weight.t(), torch.tensor(number), torch.empty(0)],
        "rng": ("word", torch.full((5,), number, dtype=torch.uint8)),
        "sparse": torch.eye(3).mul(number).to_sparse(),
        "row": weight[:, 0].expand(2, 3),
        "none": None,
        "steps": number,
    }


def same(found, expected):
    if isinstance(expected, torch.Tensor):
        return torch.equal(found.to_dense(), expected.to_dense()) and found.dtype == expected.dtype
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(same(found[k], expected[k]) for k in expected)
    if isinstance(expected, list | tuple):
        return type(found) is type(expected) and all(map(same, found, expected))
    return found == expected


@pytest.mark.parametrize("first", [1, 2])
def test_what_is_held_is_the_newest_whatever_becomes_of_the_tensors(first):
    held = HeldState()
    for number in range(first, 4):
        state = state_of(number)
        held.hold(state, number)
        for tensor in state["shared"]:
            tensor.zero_()
    state, steps = held.take(0)
    assert steps == 3
    assert same(state, state_of(3))


def test_the_memory_of_one_copy_is_that_of_the_next_and_of_no_state_that_was_taken():
    held = HeldState()
    held.hold(state_of(1), 1)
    first = held._state["shared"][0]
    held.hold(state_of(2), 2)
    assert held._state["shared"][0].data_ptr() == first.data_ptr()
    taken, _ = held.take(0)
    held.hold(state_of(3), 3)
    assert same(taken, state_of(2))


def test_tensors_that_grew_or_are_of_another_type_are_copied_all_the_same():
    held = HeldState()
    held.hold({"shared": [torch.ones(3), torch.ones(4)]}, 1)
    state = {"shared": [torch.ones(5), torch.ones(3, dtype=torch.float64), torch.ones(4)]}
    held.hold(state, 2)
    assert same(held.take(0)[0], state)


def test_states_are_held_inside_of_inference_mode_and_outside_in_turns():
    held = HeldState()
    for number in range(1, 5):
        with torch.inference_mode(mode=number % 2 == 1):
            held.hold(state_of(number), number)
    assert same(held.take(0)[0], state_of(4))


def test_none_is_held_where_too_little_memory_is_free_but_its_own_counts(monkeypatch):
    held = HeldState()
    held.hold({"shared": [torch.ones(1000)]}, 1)
    monkeypatch.setattr(held_state, "_free", lambda: 15_000.0)
    held.hold({"shared": [torch.zeros(1000)]}, 2)
    assert same(held._state, {"shared": [torch.zeros(1000)]})
    monkeypatch.setattr(held_state, "_free", lambda: 11_000.0)
    held.hold({"shared": [torch.ones(1000)]}, 3)
    assert held.take(0) is None
    assert held.due_at == float("inf")
