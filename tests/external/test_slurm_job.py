"""The books that a job keeps of its run, and the programs of its script, in real processes."""

import contextlib
import json
import os
import subprocess
import sys
import time

import pytest

from curitorch.external.attempt import read_attempts
from curitorch.external.journal import Journal
from curitorch.external.layout import Layout
from curitorch.external.rank_report import end_report, start_report
from curitorch.external.rundir import TrainingRun
from curitorch.external.slurm_job import begin, end
from curitorch.external.stop import TrainingStopped
from curitorch.external.stores import LocalStore


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    return tmp_path / "a run"


def attempt(run, *, resume=0, steps=(), stop=None, error=None, begun=True):
    """Write what an attempt leaves; returns its record."""
    begin(run, nodes=2, processes=1)
    found = read_attempts(run)[-1]
    if begun:
        with Journal(Layout(run).journal) as journal:
            journal.attempt(found.number, resume_step=resume, world_size=2)
            for step in steps:
                journal.write("step", step=step, epoch=0)
            if stop is not None:
                journal.write("stop", step=stop, reason="SIGTERM")
    if error is not None:
        report = start_report(Layout(run).logs(found.number), rank=1, pid=1)
        end_report(Layout(run).logs(found.number), report, error)
    return found


def test_an_attempt_knows_its_job_and_how_to_start_it_again(run):
    assert begin(run, nodes=2, processes=4) == {"CURITORCH_ATTEMPT": "0"}
    assert begin(run, nodes=2, processes=4, here=True) == {"CURITORCH_ATTEMPT": "1"}
    first, second = read_attempts(run)
    assert (first.world_size, first.nodes, first.job) == (8, 2, "4711")
    assert first.command == ["sbatch", str(run / "job.sbatch")]
    assert second.command == ["bash", str(run / "job.sbatch"), "here"]


def test_a_member_of_an_array_has_the_arrays_id(run, monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "4700")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    begin(run, nodes=1, processes=1)
    assert read_attempts(run)[0].job == "4700_3"


def test_a_run_that_left_a_model_is_completed_by_its_job(run):
    made = attempt(run, steps=[1, 2])
    (run / "model.ckpt").write_bytes(b"model")
    assert end(run, made, exit_code=0, asked="") == "complete"
    assert TrainingRun(run).is_complete
    assert [each.outcome for each in read_attempts(run)] == ["complete"]


def test_a_run_without_a_model_is_not_complete(run):
    assert end(run, attempt(run), exit_code=0, asked="") == "failed"
    assert not TrainingRun(run).is_complete


@pytest.mark.parametrize("asked", ["", "pause", "stop"])
def test_ranks_that_saved_and_stopped_stopped_whatever_srun_says(run, asked):
    for exit_code in (0, 1):
        made = attempt(run, steps=[1, 2], stop=2)
        assert end(run, made, exit_code=exit_code, asked=asked) == "stopped"


def test_ranks_that_were_stopped_before_they_listened_stopped(run):
    assert end(run, attempt(run, begun=False), exit_code=15, asked="stop") == "stopped"


def test_a_crash_stays_a_crash_when_a_stop_was_asked_for(run):
    error = ValueError("bad batch")
    assert end(run, attempt(run, error=error), exit_code=1, asked="pause") == "failed"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[../gloo/pair.cc] Connection closed by peer [127.0.0.1]"),
        RuntimeError("DataLoader worker (pid 12) is killed by signal: Terminated. "),
        TrainingStopped(3, "SIGTERM", saved=True),
    ],
)
def test_what_a_stop_does_to_others_is_no_crash(run, error):
    assert end(run, attempt(run, error=error), exit_code=1, asked="pause") == "stopped"
    assert end(run, attempt(run, begun=False), exit_code=1, asked="") == "failed"


def test_a_job_whose_node_died_begins_again_unless_a_rank_failed_by_itself(run):
    lost = RuntimeError("[../gloo/pair.cc] Connection closed by peer [127.0.0.1]")
    assert end(run, attempt(run, error=lost), exit_code=1, asked="lost") == "lost"
    assert end(run, attempt(run, error=ValueError("bad")), exit_code=1, asked="lost") == "failed"
    assert end(run, attempt(run, steps=[1], stop=1), exit_code=1, asked="lost") == "stopped"
    assert [each.outcome for each in read_attempts(run)] == ["failed", "failed", "stopped"]


def test_two_attempts_without_a_step_are_stuck(run):
    assert end(run, attempt(run, steps=[1], stop=1), exit_code=0, asked="pause") == "stopped"
    assert end(run, attempt(run, resume=1, stop=1), exit_code=0, asked="pause") == "stopped"
    assert end(run, attempt(run, resume=1, stop=1), exit_code=0, asked="pause") == "stuck"
    assert end(run, attempt(run, resume=1, steps=[2], stop=2), exit_code=0, asked="") == "stopped"


def test_the_script_reads_what_the_program_prints(run):
    environment = {**os.environ, "CURITORCH_RUN_DIR": str(run)}
    words = [sys.executable, "-m", "curitorch.external.slurm_job"]
    done = subprocess.run(
        [*words, "begin", "sbatch", "2", "1"], env=environment, capture_output=True, check=True
    )
    assert done.stdout == b"export CURITORCH_ATTEMPT=0\n"
    environment["CURITORCH_ATTEMPT"] = "0"
    done = subprocess.run(
        [*words, "end", "1", ""], env=environment, capture_output=True, check=True
    )
    assert done.stdout == b"failed\n"


def test_saves_that_cannot_be_gone_on_from_are_one_sentence_and_the_attempts_end(run, tmp_path):
    (tmp_path / "state.txt").write_text("trained")
    with LocalStore(Layout(run).checkpoints) as store:
        store.put(7, {"state.txt": tmp_path / "state.txt"})
    [sidecar] = Layout(run).checkpoints.glob("step-*.json")
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "schema": 99}))
    done = subprocess.run(
        [*(sys.executable, "-m", "curitorch.external.slurm_job"), "begin", "sbatch", "2", "1", "s"],
        env={**os.environ, "CURITORCH_RUN_DIR": str(run)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    sentence = done.stderr.splitlines()[-1]  # after the store's own warning
    assert sentence.startswith("The newest checkpoint, of step 7, is for another curitorch")
    assert Layout(run).launcher_log(0).read_text() == f"{sentence}\n"  # an experiment shows it
    [attempt] = read_attempts(run)
    assert (attempt.outcome, attempt.exit_code) == ("failed", 1)


RANK = """
import os, signal, sys, time
from pathlib import Path
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
signal.signal(signal.SIGINT, signal.default_int_handler)
Path(sys.argv[1]).touch()
while not asked:
    time.sleep(0.05)
time.sleep(0.3)
print("told", len(asked))
sys.exit(143)
"""


@pytest.fixture
def node(tmp_path):
    """A node whose rank has begun, in the folder of the test.

    In the place of torchrun stands a process that ignores nothing and starts one rank.
    """
    script, begun = tmp_path / "train.py", tmp_path / "begun"
    script.write_text(RANK)
    environment = {**os.environ, "CURITORCH_RUN_DIR": str(tmp_path), "CURITORCH_ATTEMPT": "0"}
    rank = [sys.executable, "-m", "curitorch.external.rank", str(script), str(begun)]
    launcher = f"import subprocess, sys; sys.exit(subprocess.run({rank!r}).returncode)"
    process = subprocess.Popen(
        [sys.executable, "-m", "curitorch.external.node", sys.executable, "-c", launcher],
        env={**environment, "SLURM_PROCID": "0"},
        stdin=subprocess.PIPE,
    )
    while not begun.exists():
        time.sleep(0.05)
        assert process.poll() is None
    yield process
    with contextlib.suppress(BrokenPipeError):
        process.communicate(b"stop\n")  # one that a failed test has left


@pytest.mark.parametrize("how", ["line", "signal"])
def test_a_node_passes_a_stop_to_its_ranks_once_and_they_end_well(tmp_path, node, how):
    if how == "line":
        node.stdin.write(b"stop\n")
        node.stdin.flush()
    else:
        node.terminate()
    assert node.wait() == 0
    assert (tmp_path / "logs/attempt-0/rank-0.log").read_text() == "told 1\n"
    report = json.loads((tmp_path / "logs/attempt-0/rank-0.json").read_text())
    assert report["exit_code"] == 143  # the truth stands in its report


def test_a_node_asks_its_ranks_where_they_are(tmp_path, node):
    log = tmp_path / "logs/attempt-0/rank-0.log"
    node.stdin.write(b"stacks\n")
    node.stdin.flush()
    while "train.py" not in log.read_text():
        time.sleep(0.05)
        assert node.poll() is None
    node.stdin.write(b"stop\n")
    node.stdin.flush()
    assert node.wait() == 0
    assert (tmp_path / "logs/attempt-0/ended").read_text() == "0\n"


def test_a_node_ends_as_its_launcher_does():
    words = [sys.executable, "-m", "curitorch.external.node"]
    for code, expected in (("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 137)):
        done = subprocess.run([*words, sys.executable, "-c", code], check=False)
        assert done.returncode == expected
