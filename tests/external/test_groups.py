"""Process groups are left before the interpreter ends, by each engine, whether done or stopped."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
from torch import distributed

from curitorch.external.groups import groups_left
from curitorch.external.rundir import TrainingRun


@pytest.fixture
def begin(tmp_path):
    """Begins the group of a world of one process."""

    def init():
        distributed.init_process_group("gloo", f"file://{tmp_path}/meet", rank=0, world_size=1)

    yield init
    if distributed.is_initialized():
        distributed.destroy_process_group()


@pytest.mark.parametrize("status", [None, 0, 130, 143])
def test_the_group_is_left_at_an_end_that_all_ranks_come_to(begin, status):
    with groups_left():
        begin()
    assert not distributed.is_initialized()
    with pytest.raises(SystemExit), groups_left():
        begin()
        sys.exit(status)
    assert not distributed.is_initialized()


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt(), SystemExit(1)])
def test_after_an_error_it_is_not_for_others_may_be_waiting_in_it(begin, error):
    with pytest.raises(type(error)), groups_left():
        begin()
        raise error
    assert distributed.is_initialized()


def test_the_group_of_somebody_else_stays(begin):
    begin()
    with groups_left():
        pass
    assert distributed.is_initialized()


def test_nothing_is_imported_to_leave_nothing():
    code = (
        "import sys\nfrom curitorch.external.groups import groups_left\n"
        "with groups_left():\n    pass\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


PROJECT = """
    import atexit, json, os, signal, torch
    from pathlib import Path
    from lightning.pytorch import LightningModule
    from torch import distributed
    from torch.utils.data import DataLoader, TensorDataset

    def data():
        return DataLoader(TensorDataset(torch.ones(64, 2)), 4)

    class Net(LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)

        def on_fit_start(self):
            atexit.register(self.note, distributed.is_initialized())

        def note(self, was_begun):
            found = [was_begun, distributed.is_initialized()]
            Path(f"{os.environ['SAYS']}-{self.global_rank}.json").write_text(json.dumps(found))

        def training_step(self, batch, batch_idx):
            if os.environ["SAYS"] == "stopped" and self.global_step == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return self.layer(batch[0]).pow(2).mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["lightning", "lean"])
def test_trainers_are_in_no_group_as_their_processes_end(tmp_path, engine):
    (tmp_path / "project.py").write_text(textwrap.dedent(PROJECT))
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "--"]
    words = ["--model=project:Net", "--data=project:data", "--epochs=4", "--run_dir=run"]
    words += ["--accelerator=cpu", f"--engine={engine}"]
    for says in ("stopped", "done"):
        ended = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", *launch, "curitorch.external.trainer", *words],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "SAYS": says, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ended.returncode == 0) == (says == "done"), ended.stderr
        for rank in (0, 1):
            found = json.loads((tmp_path / f"{says}-{rank}.json").read_text())
            assert found == [True, False], f"{says}, rank {rank}"
    outcomes = [each.outcome for each in TrainingRun(tmp_path / "run").attempts()]
    assert outcomes == ["stopped", "complete"]
