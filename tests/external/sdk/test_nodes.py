"""Two machines, one run directory: an agent of torchrun for each, on loopback."""

import os
import signal
import subprocess
import sys
import time

import pytest

from curitorch.external.journal import read_journal
from curitorch.external.rundir import TrainingRun
from curitorch.external.stores.testing.held_port import hold_port

SCRIPT = """
import atexit, json, os, time
from pathlib import Path
import torch.distributed as dist
import curitorch.external.sdk as pf

dist.init_process_group("gloo")
atexit.register(dist.destroy_process_group)
rank = dist.get_rank()
path = Path(os.environ["CKPT_DIR"], f"shard-{rank}.json")
step = json.loads(path.read_text())["step"] if path.exists() else 0
pf.init(int(os.environ["STEPS"]), processed_steps=step)
print(f"rank {rank} begins after {step}", flush=True)
while step < int(os.environ["STEPS"]):
    with pf.train_step():
        time.sleep(0.02)
        step += 1
    pf.metric({"loss": 1 / step})
    if pf.is_emergency_save() or step == int(os.environ["STEPS"]):
        path.write_text(json.dumps({"rank": rank, "step": step}))
        pf.upload_checkpoint()
"""


@pytest.fixture
def launch(scripts):
    """Starts both agents, always with the same variables, as a launcher that is no stage does."""
    (scripts.folder / "script.py").write_text(SCRIPT)
    scripts.saves.mkdir()
    started = []

    held = hold_port()
    port = held.getsockname()[1]

    def start(steps):
        for node in (0, 1):
            environment = {
                **{"PERIFLOW_ENABLED": "1", "NUM_NODES": "2", "NODE_RANK": str(node)},
                **{"PROCESSED_ITERS": "0", "CKPT_DIR": str(scripts.saves)},
                **{"STEPS": str(steps), "OMP_NUM_THREADS": "1"},
            }
            command = [
                *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2"),
                *(f"--node-rank={node}", "--nproc-per-node=1", "--master-addr=127.0.0.1"),
                *(f"--master-port={port}", "script.py"),
            ]
            started.append(
                subprocess.Popen(
                    command,
                    cwd=scripts.folder,
                    env={**os.environ, **environment},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        return started[-2:]

    yield start
    for process in started:
        process.kill()
        process.communicate()
    held.close()


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_sigterm_on_one_node_saves_on_both_and_the_next_launch_goes_on(scripts, launch):
    run = scripts.saves.with_suffix(".run")
    agents = launch(100_000)
    while not any(e["event"] == "step" for e in read_journal(run / "journal.jsonl")):
        assert all(agent.poll() is None for agent in agents)
        time.sleep(0.05)
    agents[1].send_signal(signal.SIGTERM)
    output = [agent.communicate(timeout=400)[0] for agent in agents]
    stop = read_journal(run / "journal.jsonl")[-1]
    assert (stop["event"], stop["reason"]) == ("stop", "SIGTERM"), output
    [emergency] = TrainingRun(run).checkpoints()
    assert emergency.step == stop["step"]
    folder = run / f"checkpoints/step-{stop['step']:08d}"
    assert sorted(p.name for p in folder.iterdir()) == ["shard-0.json", "shard-1.json"]
    total = stop["step"] + 5
    agents = launch(total)
    output = [agent.communicate(timeout=400)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], output
    for rank, words in enumerate(output):
        assert f"rank {rank} begins after {stop['step']}" in words
    steps = [e["step"] for e in TrainingRun(run).events() if e["event"] == "step"]
    assert steps == list(range(1, total + 1))
    assert [a.outcome for a in TrainingRun(run).attempts()] == ["stopped", "complete"]
    assert [a.nodes for a in TrainingRun(run).attempts()] == [2, 2]
