"""Scripts that report through the SDK, under a stage: shown, stopped, resumed, found stalled."""

import json
import os
import re
import shutil
import signal
import time

import boto3
import pytest

from curitorch.cachers import TrainingRun
from curitorch.external.journal import read_journal
from curitorch.external.rank_report import read_reports
from curitorch.external.stores import open_store
from curitorch.external.stores.testing.running_service import RunningService
from tests.external.stores.swift import running_swift

EXPERIMENT = """
    import curifactory as cf
    from curitorch.stages import external_training

    train = external_training("train.py", sdk=True, options={"steps": 60})

    def run(param_sets, manager):
        for params in param_sets:
            train(cf.Record(manager, params))
"""

SCRIPT = """
    import argparse, atexit, json, os, time
    from pathlib import Path
    import torch, torch.distributed as dist
    import curitorch.external.sdk as pf

    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int)
    steps = parser.parse_args().steps
    dist.init_process_group("gloo")
    atexit.register(dist.destroy_process_group)
    rank = dist.get_rank()
    path = Path(os.environ["CKPT_DIR"], "checkpoint.json")
    step = json.loads(path.read_text())["latest_step"] if path.exists() else 0
    print(f"begins after {step}", flush=True)
    pf.init(steps)
    slow = float(os.environ.get("SLOW", 0)) * (os.environ["CURITORCH_ATTEMPT"] == "0")
    while step < steps:
        with pf.train_step():
            dist.all_reduce(torch.ones(1))
            time.sleep(slow if step < 25 else 10 * slow)
            step += 1
            if step == int(os.environ.get("HANG_AT", -1)):
                time.sleep(600)
        pf.metric({"iteration": step, "loss": 1 / step, "phase": "warm" if step < 9 else "on"})
        if step % 20 == 0 or pf.is_emergency_save():
            if rank == 0:
                path.write_text(json.dumps({"latest_step": step}))
            pf.upload_checkpoint()
"""


@pytest.fixture
def sdk_project(project):
    """A script of the reference's shape in two processes, and its stage."""
    project.write({"train.py": SCRIPT, "experiments/toy.py": EXPERIMENT})
    project.write(
        {
            "params/one.py": """
                import json, os
                from curitorch.params import CheckpointParams, LaunchParams, TrainingParams

                def get_params():
                    launch = json.loads(os.environ.get("LAUNCH", "{}"))
                    checkpoint = json.loads(os.environ.get("CHECKPOINT", "{}"))
                    return [TrainingParams(
                        name="one",
                        launch=LaunchParams(processes_per_node=2, **launch),
                        checkpoint=CheckpointParams(**checkpoint),
                    )]
            """
        }
    )
    return project


def wait_until(is_so):
    deadline = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def rank_pid(run, rank):
    return next(r.pid for r in read_reports(run / "logs/attempt-0") if r.rank == rank)


@pytest.fixture
def store(request, tmp_path, monkeypatch):
    """The settings of a store of the kind that the test names, for the run called `{run}`."""
    if request.param == "local":
        yield "local", f"root={tmp_path}/kept/{{run}}"
    elif request.param == "tcp":
        with RunningService(tmp_path) as service:
            yield service.recipe("{run}")
    else:
        with running_swift() as server:
            for name, value in server.credentials.items():
                monkeypatch.setenv(name, value)
            boto3.client("s3", endpoint_url=server.endpoint_url).create_bucket(Bucket="kept")
            yield "s3", f"root=s3://kept/{{run}}/,endpoint_url={server.endpoint_url}"


def test_a_script_is_shown_reported_and_complete_like_our_own_trainer(sdk_project):
    result = sdk_project.run()
    assert result.returncode == 0, result.stdout + result.stderr
    [path] = sdk_project.runs()
    run = TrainingRun(path)
    assert run.is_complete
    assert (run.manifest.step, run.manifest.attempts) == (60, 1)
    assert [c.step for c in run.checkpoints()] == [20, 40, 60]
    assert all(c.path.is_file() for c in run.checkpoints())
    metrics = run.metrics()
    assert metrics["step"].tolist() == list(range(1, 61))
    assert metrics["loss"].iloc[-1] == 1 / 60
    assert metrics["phase"].iloc[0] == "warm"
    line = re.search(r"step 60/60 · .*", result.stdout + result.stderr)[0]
    for part in ("loss 0.01667", "steps/s", "/step, p99", "checkpoint", "phase on"):
        assert part in line
    report = (sdk_project.path / "reports/_latest/index.html").read_text()
    assert '<img alt="loss" src="data:image/png;base64,' in report
    assert "step-00000060" in report
    again = sdk_project.run()
    assert again.returncode == 0
    assert len(run.attempts()) == 1


@pytest.mark.parametrize(
    ("victim", "store"),
    [("rank 1", "local"), ("the experiment", "tcp"), ("rank 1", "s3")],
    indirect=["store"],
)
@pytest.mark.slow
def test_sigterm_in_the_middle_uploads_from_both_ranks_and_the_next_run_goes_on(
    sdk_project, monkeypatch, victim, store
):
    kind, settings = store
    monkeypatch.setenv("CHECKPOINT", json.dumps({"store": kind, "store_settings": settings}))
    monkeypatch.setenv("SLOW", "0.1")
    process = sdk_project.start()
    path = sdk_project.wait_for_step(25)
    target = rank_pid(path, 1) if victim == "rank 1" else process.pid
    os.kill(target, signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0, output
    sdk_project.wait_until_gone(path)
    stop = read_journal(path / "journal.jsonl")[-1]
    assert (stop["event"], stop["reason"]) == ("stop", "SIGTERM")
    assert [a["outcome"] for a in sdk_project.attempts(path)] == ["stopped"]
    assert not (path / "checkpoints").exists()
    with open_store(kind, settings.replace("{run}", path.name)) as kept:
        emergency = kept.newest_valid()
        steps = [checkpoint.step for checkpoint in kept.list()]
    assert emergency.step == stop["step"]
    assert emergency.details["save_type"] == "EMERGENCY"
    assert steps == sorted({*range(20, stop["step"], 20), stop["step"]})
    shutil.rmtree(path / "saves")  # as on another machine: only the store has them
    for rank in (0, 1):  # both stood at that step, and said so
        name = "journal.jsonl" if rank == 0 else "logs/attempt-0/rank-1.jsonl"
        last = [e for e in read_journal(path / name) if e["event"] == "step"][-1]
        assert last["step"] == stop["step"]
    result = sdk_project.run()
    assert result.returncode == 0, result.stdout + result.stderr
    run = TrainingRun(path)
    assert run.is_complete
    assert [e["step"] for e in run.events() if e["event"] == "step"] == list(range(1, 61))
    assert f"begins after {stop['step']}" in run.log(rank=1)


@pytest.mark.slow
def test_after_a_kill_a_torn_save_is_set_aside_and_the_steps_go_on_from_the_upload(
    sdk_project, monkeypatch
):
    monkeypatch.setenv("SLOW", "0.1")
    process = sdk_project.start()
    path = sdk_project.wait_for_step(25)
    wait_until(lambda: [c.step for c in TrainingRun(path).checkpoints()] == [20])
    for rank in (0, 1):
        os.kill(rank_pid(path, rank), signal.SIGKILL)
    process.communicate(timeout=120)
    sdk_project.wait_until_gone(path)
    (path / "saves/checkpoint.json").write_text('{"latest_st')
    result = sdk_project.run()
    assert result.returncode == 0, result.stdout + result.stderr
    run = TrainingRun(path)
    assert run.log(rank=0).startswith("begins after 20")
    assert [e["step"] for e in run.events() if e["event"] == "step"] == list(range(1, 61))


@pytest.mark.slow
def test_killed_between_its_last_upload_and_its_end_a_run_is_complete(sdk_project):
    assert sdk_project.run().returncode == 0
    [path] = sdk_project.runs()
    (path / "manifest.json").unlink()
    journal = path / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    assert '"complete"' in lines[-1]
    journal.write_text("".join(lines[:-1]))
    result = sdk_project.run()
    assert result.returncode == 0, result.stdout + result.stderr
    assert TrainingRun(path).is_complete
    assert TrainingRun(path).manifest.step == 60
    assert len(TrainingRun(path).attempts()) == 1  # nothing was launched


@pytest.mark.slow
def test_checkpoints_of_a_newer_curitorch_are_refused_before_the_script_begins(sdk_project):
    assert sdk_project.run().returncode == 0
    [path] = sdk_project.runs()
    (path / "manifest.json").unlink()
    for sidecar in (path / "checkpoints").glob("step-*.json"):
        sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "schema": 3}))
    saved = (path / "saves/checkpoint.json").read_bytes()
    result = sdk_project.run()
    assert result.returncode == 1
    said = result.stdout + result.stderr
    assert "The newest checkpoint, of step 60, is for another curitorch" in said
    run = TrainingRun(path)
    assert [attempt.outcome for attempt in run.attempts()] == ["complete", "failed"]
    assert not run.layout.logs(1).exists()
    assert (path / "saves/checkpoint.json").read_bytes() == saved


@pytest.mark.slow
def test_a_script_that_stalls_is_reported_with_stacks_and_killed_only_if_told_so(
    sdk_project, monkeypatch
):
    monkeypatch.setenv("HANG_AT", "5")
    monkeypatch.setenv("LAUNCH", json.dumps({"stall_seconds": 1.5}))
    process = sdk_project.start()
    path = sdk_project.wait_for_step(4)
    hangs = [line.strip() for line in SCRIPT.splitlines()].index("time.sleep(600)")
    log = path / "logs/attempt-0/rank-0.log"
    wait_until(lambda: f'train.py", line {hangs} in' in log.read_text())
    time.sleep(0.5)
    assert process.poll() is None  # said, not killed
    process.terminate()
    monkeypatch.setenv("LAUNCH", json.dumps({"stall_seconds": 1.5, "kill_stalled": True}))
    for rank in (0, 1):
        os.kill(rank_pid(path, rank), signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert output.count("Stalled: no step has ended for 1.5 s, after step 4.") == 1
    assert "Rank 1, whose log is" in output
    assert re.search(r'train\.py", line \d+ in <module>', output)
    sdk_project.wait_until_gone(path)
    result = sdk_project.run()
    assert result.returncode == 1
    assert "Its processes are killed." in result.stdout + result.stderr
    sdk_project.wait_until_gone(path)
