import gc

import pytest
import torch
from torch.optim import optimizer as torchs

from curitorch.external.stores.saving.owned import OptimizerWatch, storage_key


class Asked:
    """Notes what a parameter is each time somebody asks whether it may change."""

    def __init__(self, parameter):
        self.parameter = parameter
        self.seen = []

    def hold(self):
        grad = self.parameter.grad
        self.seen.append((self.parameter.item(), None if grad is None else grad.item()))


@pytest.fixture
def watch():
    watch = OptimizerWatch()
    yield watch
    watch.close()


def parameter(grad=None):
    made = torch.nn.Parameter(torch.tensor(5.0))
    made.grad = grad if grad is None else torch.tensor(grad)
    return made


def test_a_step_asks_before_it_changes_anything(watch):
    p = parameter(grad=1.0)
    watch.pending = Asked(p)
    torch.optim.SGD([p], lr=1.0).step()
    assert watch.pending.seen == [(5.0, 1.0)]
    assert p.item() == 4.0


@pytest.mark.parametrize("by_name", [True, False])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW, torch.optim.LBFGS])
def test_a_step_with_a_closure_asks_when_the_gradients_are_there(watch, kind, by_name):
    p = parameter()
    optimizer = kind([p], lr=0.1)
    watch.pending = Asked(p)

    def closure():
        optimizer.zero_grad()
        loss = p * 3
        loss.backward()
        return loss

    assert (optimizer.step(closure=closure) if by_name else optimizer.step(closure)) == 15.0
    assert watch.pending.seen[0] == (5.0, 3.0)
    assert p.item() < 5.0


def test_another_kind_of_step_asks_at_once_as_it_may_change_before_the_closure(watch):
    class Sharpened(torch.optim.SGD):
        def step(self, closure):
            with torch.no_grad():
                p.add_(100.0)
            super().step(closure)

    p = parameter()
    watch.pending = Asked(p)
    Sharpened([p], lr=1.0).step(lambda: (p * 3).backward())
    assert watch.pending.seen[0] == (5.0, None)


def test_owned_are_parameters_and_states_of_those_that_stepped(watch):
    p, other = parameter(grad=1.0), parameter(grad=1.0)
    optimizer = torch.optim.AdamW([p])
    never = torch.optim.AdamW([other])
    assert watch.owned() == {}
    optimizer.step()
    owned = watch.owned()
    state = optimizer.state[p]
    expected = [p, state["step"], state["exp_avg"], state["exp_avg_sq"]]
    keys = {storage_key(tensor.untyped_storage()) for tensor in expected}
    assert set(owned) == keys
    assert storage_key(p.detach().untyped_storage()) in owned  # as a state_dict gives it
    assert storage_key(other.untyped_storage()) not in owned
    del optimizer, never
    gc.collect()
    assert watch.owned() == {}


def test_torch_forgets_a_watch_that_is_closed_or_gone():
    gc.collect()  # of other tests
    before = len(torchs._global_optimizer_pre_hooks)
    closed, gone = OptimizerWatch(), OptimizerWatch()
    assert len(torchs._global_optimizer_pre_hooks) == before + 2
    closed.close()
    del gone
    gc.collect()
    assert len(torchs._global_optimizer_pre_hooks) == before
    torch.optim.SGD([parameter(grad=1.0)], lr=1.0).step()
