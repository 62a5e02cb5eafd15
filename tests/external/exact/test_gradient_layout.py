"""Three ranks that go on with DDP's layout of gradients end bitwise the same; without it, not."""

import copy
import os
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from curitorch.external.exact.gradient_layout import can_be_kept, layout_of, may_change, put_layout

KINDS = [{}, {"gradient_as_bucket_view": True}, {"bucket_cap_mb": 0.0001}]


class Net(torch.nn.Module):
    """Its layers are used in another order than they are made in."""

    def __init__(self):
        super().__init__()
        self.b, self.a = torch.nn.Linear(7, 5), torch.nn.Linear(8, 7)
        self.c = torch.nn.Linear(5, 3)

    def forward(self, x):
        return self.c(torch.tanh(self.b(torch.tanh(self.a(x)))))


class Training:
    def __init__(self, kind, rank):
        torch.manual_seed(0)
        self.model = DistributedDataParallel(Net(), **kind)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)
        self.noise = torch.Generator().manual_seed(rank)

    def step(self, count):
        for _ in range(count):
            self.optimizer.zero_grad()
            self.model(torch.randn(4, 8, generator=self.noise)).square().sum().backward()
            self.optimizer.step()

    def state(self):
        own = (self.model.state_dict(), self.optimizer.state_dict(), self.noise.get_state())
        return copy.deepcopy(own)

    def load(self, state):
        for each, saved in zip((self.model, self.optimizer), state[:2], strict=True):
            each.load_state_dict(copy.deepcopy(saved))
        self.noise.set_state(state[2])

    def weights(self):
        return torch.cat([each.detach().flatten() for each in self.model.parameters()])


def go_on(rank, folder):
    """Train in one piece, and with an interruption after 1, 2 and 3 steps; say what is the same."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=3)
    same = {True: [], False: []}  # with the layout put back, and without
    for kind in KINDS:
        for before in (1, 2, 3):
            whole = Training(kind, rank)
            whole.step(before)
            state, layout = whole.state(), layout_of(whole.model)
            whole.step(4)
            for kept in (True, False):
                part = Training(kind, rank)
                called = []
                part.model.module.a.weight.register_hook(called.append)
                part.load(state)
                if kept:
                    part.model.module.b.weight.grad = torch.ones(5, 7)
                    put_layout(part.model, layout)
                    assert not called
                    assert part.model.module.b.weight.grad.sum() == 35
                    assert part.model.module.c.weight.grad is None
                part.step(4)
                assert len(called) == 4
                same[kept].append(torch.equal(part.weights(), whole.weights()))
    static = Training({"static_graph": True}, rank).model
    unused = Training({"find_unused_parameters": True}, rank).model
    assert (may_change(static), can_be_kept(static), layout_of(static)) == (True, False, None)
    assert not may_change(unused)
    assert all(same[True])
    assert not all(same[False])
    distributed.destroy_process_group()
    Path(folder, f"done-{rank}").touch()
    os._exit(0)  # torch's own threads may abort at the end of an interpreter


@pytest.mark.slow
def test_three_ranks_add_gradients_up_as_before(tmp_path):
    torch.multiprocessing.spawn(go_on, (str(tmp_path),), nprocs=3)
    assert len(list(tmp_path.glob("done-*"))) == 3
