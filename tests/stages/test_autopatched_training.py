"""An unmodified script under a stage: trained in two processes, stopped, gone on, complete."""

import os
import shutil
import signal

import pytest

from curitorch.cachers import TrainingRun
from curitorch.external.rank_report import read_reports

EXPERIMENT = """
    import curifactory as cf
    from curitorch.params import CheckpointParams
    from curitorch.stages import autopatched_training

    train = autopatched_training(
        "train.py", options={"epochs": 4}, checkpoint=CheckpointParams(every_n_steps=50)
    )

    def run(param_sets, manager):
        for params in param_sets:
            train(cf.Record(manager, params))
"""

SCRIPT = """
    import argparse, os, time
    import torch, torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel as DDP
    from torch.utils.data import DataLoader, TensorDataset
    from torch.utils.data.distributed import DistributedSampler

    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int)
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(64, 2), torch.randn(64, 1))
    sampler = DistributedSampler(data)
    loader = DataLoader(data, 4, sampler=sampler)
    model = DDP(torch.nn.Linear(2, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for epoch in range(parser.parse_args().epochs):
        sampler.set_epoch(epoch)
        for i, (x, y) in enumerate(loader):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            time.sleep(float(os.environ.get("SLOW", 0)) * (20 if epoch else 1))
            if dist.get_rank() == 0:
                with open(os.environ["SAID"], "a") as file:
                    file.write(f"{epoch} {i} {loss.item()!r}\\n")
    dist.destroy_process_group()
"""


@pytest.fixture
def script_project(project):
    """A script of nobody's in two processes, and its stage."""
    project.write({"train.py": SCRIPT, "experiments/toy.py": EXPERIMENT})
    project.write(
        {
            "params/one.py": """
                from curitorch.params import LaunchParams, TrainingParams

                def get_params():
                    return [TrainingParams(name="one", launch=LaunchParams(processes_per_node=2))]
            """
        }
    )
    return project


def test_a_stopped_script_goes_on_under_its_stage_as_if_nothing_had_happened(
    script_project, tmp_path, monkeypatch
):
    whole, parts = tmp_path / "whole.txt", tmp_path / "parts.txt"
    monkeypatch.setenv("SAID", str(whole))
    done = script_project.run()
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = script_project.runs()
    assert TrainingRun(path).is_complete
    assert TrainingRun(path).manifest.step == 32
    shutil.rmtree(path)
    monkeypatch.setenv("SAID", str(parts))
    monkeypatch.setenv("SLOW", "0.1")
    with script_project.start() as other:
        path = script_project.wait_for_step(5)
        pid = next(r.pid for r in read_reports(path / "logs/attempt-0") if r.rank == 1)
        os.kill(pid, signal.SIGTERM)
        said, _ = other.communicate()
    assert other.returncode != 0
    assert not TrainingRun(path).is_complete
    monkeypatch.delenv("SLOW")
    again = script_project.run()
    assert again.returncode == 0, said + again.stdout + again.stderr
    assert parts.read_text() == whole.read_text()
    assert [attempt["outcome"] for attempt in script_project.attempts(path)] == [
        "stopped",
        "complete",
    ]
