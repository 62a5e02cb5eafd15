"""FSDP2 on the CPU, in real processes over gloo; sharded states as checkpoints of a store."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch

from curitorch.external.adapter.fully_sharded import blocks
from curitorch.external.adapter.sharded import _DESCRIPTIONS, read_shards
from curitorch.external.refused import Refused
from curitorch.external.resume import resume_point
from curitorch.external.state_files import fetch_parts
from curitorch.external.stores import LocalStore
from tests.external.adapter import world_fits as fits
from tests.external.adapter.world_plan import launch

DDP = "ddp_find_unused_parameters_true"  # a layer of the net is not used

PRELUDE = """
    import copy, pathlib, sys, torch
    import torch.distributed as dist
    from curitorch.external.adapter.fully_sharded import shard
    from curitorch.external.refused import Refused
    from curitorch.external.adapter.sharded import (
        divided, gathered, put_shards, read_shards, spread, spread_optimizer, write_shards,
    )
    from curitorch.external.state_files import fetch_parts
    from curitorch.external.stores import LocalStore
    rank, ranks, folder = int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting-of-{ranks}"
    dist.init_process_group("gloo", meeting, rank=rank, world_size=ranks)
    mesh = dist.init_device_mesh("cpu", (ranks,))
    store = LocalStore(folder / "store")

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(3))
            self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
            self.layers = torch.nn.Sequential(
                torch.nn.Linear(3, 7), torch.nn.Tanh(), torch.nn.Linear(7, 1)
            )

        def forward(self, x):
            self.seen += len(x)
            return self.layers(x * self.scale).square().mean()

    torch.manual_seed(1)
    net = Net()
    shard(net, mesh)
    optimizer = torch.optim.AdamW(net.parameters(), 0.1)

    def state():
        return {"state_dict": net.state_dict(), "optimizer_states": [optimizer.state_dict()]}

    def step(number):
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(number))
        net(x.chunk(ranks)[rank]).backward()
        optimizer.step()
        optimizer.zero_grad()

    def take(found):
        net.load_state_dict(found["state_dict"])
        optimizer.load_state_dict(found["optimizer_states"][0])

    def same(one, other):
        if isinstance(one, dict):
            return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
        if isinstance(one, list):
            return len(one) == len(other) and all(map(same, one, other))
        return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
"""

TWO = """
    try:
        shard(torch.nn.Sequential(net), mesh)
    except Refused as error:
        assert "'0' is sharded by fully_shard already" in str(error)
    else:
        raise AssertionError("sharded twice")
    for number in range(3):
        step(number)
    draft = folder / "draft"
    parts, rest = divided(state(), rank=rank)
    write_shards(parts, draft)
    if rank == 0:
        (draft / "rest.ckpt").write_bytes(rest)
        put_shards(store, 3, draft, processes=ranks, details={"epoch": 1})
    before = copy.deepcopy(gathered(state(), rank=rank))
    dist.barrier()
    if rank == 0:
        torch.save(before, folder / "whole.pt")
    for number in range(3, 6):
        step(number)
    after = copy.deepcopy(gathered(state(), rank=rank))
    (stored,) = store.list()
    take(read_shards(fetch_parts(store, stored, folder), mesh=mesh))
    again = gathered(state(), rank=rank)
    if rank == 0:
        assert same(again, before)
    for number in range(3, 6):
        step(number)
    resumed = gathered(state(), rank=rank)
    if rank == 0:
        assert same(resumed, after) and not same(resumed, before)
    dist.barrier()
    dist.destroy_process_group()
"""

OTHERS = """
    whole = torch.load(folder / "whole.pt", weights_only=True)
    (stored,) = store.list()
    take(read_shards(fetch_parts(store, stored, folder), mesh=mesh))
    resharded = gathered(state(), rank=rank)
    if rank == 0:
        assert same(resharded, whole)
    step(3)
    take({
        "state_dict": spread(whole["state_dict"], net.state_dict()),
        "optimizer_states": [spread_optimizer(whole["optimizer_states"][0], optimizer)],
    })
    from_a_whole_file = gathered(state(), rank=rank)
    if rank == 0:
        assert same(from_a_whole_file, whole)
    dist.barrier()
    dist.destroy_process_group()
"""


def together(folder, code, ranks):
    program = folder / f"{ranks}.py"
    program.write_text(textwrap.dedent(PRELUDE) + textwrap.dedent(code))
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(program), str(rank), str(ranks), str(folder)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(ranks)
    ]
    outputs = [process.communicate(timeout=280)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * ranks, "\n".join(outputs)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sharded_state_is_one_verified_checkpoint_for_any_number_of_processes(tmp_path):
    together(tmp_path, TWO, 2)
    store = LocalStore(tmp_path / "store")
    stored = store.newest_valid()
    assert sorted(stored.files) == ["__0_0.distcp", "__1_0.distcp", "metadata", "rest.ckpt"]
    assert (stored.step, stored.details) == (3, {"epoch": 1})
    whole = torch.load(tmp_path / "whole.pt", weights_only=True)
    merged = read_shards(fetch_parts(store, stored, tmp_path))  # by this process alone
    assert merged["state_dict"].keys() == whole["state_dict"].keys()
    for name, value in whole["state_dict"].items():
        assert torch.equal(merged["state_dict"][name], value)
    model = torch.nn.Sequential(torch.nn.Linear(3, 7), torch.nn.Tanh(), torch.nn.Linear(7, 1))
    ordinary = {n.removeprefix("layers."): v for n, v in merged["state_dict"].items() if "." in n}
    model.load_state_dict(ordinary)
    together(tmp_path, OTHERS, 3)
    part = next(tmp_path.glob("store/**/__1_0.distcp"))
    part.chmod(0o644)
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    with pytest.warns(UserWarning, match="Passed over a checkpoint"):
        assert store.newest_valid() is None


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_lean_fit_with_fsdp2_resumes_bitwise_from_parts_and_from_whole_files(tmp_path):
    options = {"exact": "rank", "strategy": "fsdp2", "every": 4}
    common = {"case": "clipping", "options": options}
    plan = [
        {**common, "to": "unstopped"},  # 12 steps, in parts after 4 and 8
        {"from": "unstopped", "to": "in parts", "only until": 8},
        {**common, "from": "in parts", "to": "in parts"},
        # ends with a whole file
        {**common, "to": "stopped", "options": {**options, "max_steps": 7}},
        {**common, "from": "stopped", "to": "stopped"},
        {**common, "to": "asked to stop", "steps": 5},
        {**common, "from": "asked to stop", "to": "asked to stop"},
        {**common, "to": "in the background", "options": {**options, "asynchronous": True}},
        {"from": "in the background", "to": "after that", "only until": 8},
        {**common, "from": "after that", "to": "after that"},
        {**common, "to": "failed", "options": {**options, "fail_at": 7}},
        {"from": "failed", "to": "after an error", "only until": 7},
        {**common, "from": "after an error", "to": "after an error"},
        {"case": "plain", "to": "plain", "options": options},
        {"case": "plain", "to": "ddp", "options": {**options, "strategy": DDP}},
        {**common, "to": "by parts", "options": {**options, "strategy": DDP, "clip": "by parts"}},
    ]
    launch(plan, tmp_path, 2)
    unstopped = fits.outcome(tmp_path / "unstopped")
    parts = ["__0_0.distcp", "__1_0.distcp", "metadata", "rest.ckpt"]
    for name in ("unstopped", "in the background"):
        stored = LocalStore(tmp_path / name).list()
        assert [sorted(each.files) for each in stored] == [parts, parts, ["model.ckpt"]]
    assert [each.step for each in LocalStore(tmp_path / "failed").list()] == [4, 7]
    others = ("in parts", "asked to stop", "in the background", "after that", "after an error")
    for other in others:
        assert fits.same(fits.outcome(tmp_path / other), unstopped), other
    stopped = fits.outcome(tmp_path / "stopped")  # whose first end ended an epoch's means
    for part in ("weights", "optimizers", "schedulers"):
        assert fits.same(stopped[part], unstopped[part]), part
    # Two numbers have one sum: DDP of two processes gives the same. A clipped norm is of other
    # parts there, and that is all that is different.
    for ours, ddps in (("plain", "ddp"), ("unstopped", "by parts")):
        ours, ddps = (fits.outcome(tmp_path / name)["weights"] for name in (ours, ddps))
        assert fits.same(ours, ddps)
    final = torch.load(tmp_path / "unstopped/step-00000012/model.ckpt", weights_only=True)
    assert fits.same(final["state_dict"], unstopped["weights"])
    assert fits.same(final["optimizer_states"], unstopped["optimizers"])
    fits.Net().load_state_dict(final["state_dict"])
    fits.copy_until(8, tmp_path / "unstopped", tmp_path / "for one")
    alone = fits.fit({}, source=tmp_path / "for one", exact="rank", gradient_clip_val=0.05)
    assert (alone["step"], alone["epoch"]) == (12, 2)  # one process draws other dropout


def test_blocks_are_what_stands_in_containers_and_has_parameters():
    inner = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    net = torch.nn.Module()
    net.body = torch.nn.ModuleList([inner, torch.nn.TransformerEncoderLayer(4, 1)])
    net.head = torch.nn.Linear(2, 2)
    assert [*blocks(net)] == [inner[0], net.body[1]]


def test_metadata_that_names_anything_else_is_not_opened(tmp_path):
    import pickle

    from curitorch.external.adapter.sharded import _Unpickler

    evil = tmp_path / "metadata"
    evil.write_bytes(pickle.dumps(os.system))
    with evil.open("rb") as file, pytest.raises(pickle.UnpicklingError, match="describes no"):
        _Unpickler(file).load()
    assert ("posix", "system") not in _DESCRIPTIONS


def test_a_run_goes_on_from_the_newest_state_whether_in_parts_or_whole(tmp_path):
    store, files = LocalStore(tmp_path / "store"), tmp_path / "files"
    files.mkdir()
    for name in ("model.ckpt", "rest.ckpt", "metadata", "__0_0.distcp"):
        (files / name).write_bytes(name.encode())
    whole = {"model.ckpt": files / "model.ckpt"}
    parts = {path.name: path for path in files.iterdir() if path.name != "model.ckpt"}
    for step, put in ((2, whole), (4, parts), (6, whole)):
        store.put(step, put, details={"epoch": step})
        found = resume_point(store, "auto", folder=tmp_path)
        kept = store.root / f"step-{step:08d}"
        assert (found.step, found.epoch) == (step, step)
        assert found.path == (kept if put is parts else kept / "model.ckpt")
    store.delete(6)
    with pytest.raises(Refused, match="is not the newest checkpoint"):
        resume_point(store, str(store.root / "step-00000002" / "model.ckpt"), folder=tmp_path)
    part = store.root / "step-00000004" / "metadata"
    part.chmod(0o644)
    part.write_bytes(b"Metadata")
    with pytest.warns(UserWarning, match="Passed over a checkpoint"):
        assert resume_point(store, "auto", folder=tmp_path).step == 2
