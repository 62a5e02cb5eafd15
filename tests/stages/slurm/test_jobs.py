"""Jobs on a real Slurm of two nodes: trained, stopped, preempted, killed, found again."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from curitorch.external.attempt import read_attempts
from curitorch.external.job_record import read_job
from curitorch.external.rundir import TrainingRun

STEPS = 200
REPOSITORY = Path(__file__).resolve().parents[3]
slow = pytest.mark.slow
pytestmark = pytest.mark.timeout(900)  # Slurm looks at time limits every 30 s


def weights(path):
    import torch

    return torch.load(path / "model.ckpt", weights_only=True)["state_dict"]


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory):
    """Return the weights that two processes of one machine end with, nobody disturbing them."""
    from curitorch.params import TrainerParams
    from curitorch.params.commandline import to_arguments

    spec = sys.modules["slurm_toy"]
    folder = tmp_path_factory.mktemp("uninterrupted")
    project = spec.Project(folder)
    project.write(spec.TOY)
    settings = TrainerParams(
        model="toy.model:Net",
        data="toy.data:loaders",
        epochs=40,
        batch_size=8,
        trainer_args={"enable_model_summary": False, "log_every_n_steps": 1},
    )
    (folder / "data.txt").write_text("data")
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words += ["-m", "--", "curitorch.external.trainer", f"--run_dir={folder / 'run'}"]
    words += [*to_arguments(settings), f"--dataset_path={folder}", "--accelerator=cpu"]
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    subprocess.run(words, cwd=folder, env=environment, check=True, capture_output=True)
    return weights(folder / "run")


def assert_same_weights(run, uninterrupted):
    import torch

    found = weights(run.path)
    assert found.keys() == uninterrupted.keys()
    assert all(torch.equal(found[name], uninterrupted[name]) for name in found)


def assert_whole(run, outcomes):
    """Assert that a run is complete, after attempts with these outcomes, no step there twice."""
    assert run.is_complete
    assert [attempt.outcome for attempt in run.attempts()] == outcomes
    assert [e["step"] for e in run.events() if e["event"] == "step"] == [*range(1, STEPS + 1)]


def test_two_nodes_train_as_one_machine_does_and_again_there_is_nothing_to_do(slurm_project):
    slurm_project.change("params/one.py", "epochs=40", "epochs=2")
    result = slurm_project.run()
    assert result.returncode == 0, result.stdout + result.stderr
    [path] = slurm_project.runs()
    run = TrainingRun(path)
    [attempt] = run.attempts()
    assert (attempt.nodes, attempt.world_size, attempt.outcome) == (2, 2, "complete")
    assert attempt.job == read_job(path).selector
    hosts = {json.loads((path / f"logs/attempt-0/rank-{r}.json").read_text())["host"] for r in "01"}
    assert hosts == {"n1", "n2"}
    assert run.command == f"sbatch '{path.resolve()}/job.sbatch'".replace(
        "a user's", "a user'\"'\"'s"
    )
    assert run.sbatch == (path / "job.sbatch").read_text()
    assert "epoch 2/2 · step 10/10" in result.stdout + result.stderr
    again = slurm_project.run()
    assert again.returncode == 0
    assert len(run.attempts()) == 1


@slow
def test_the_time_limit_saves_and_requeues_twice(slurm_project, slurm, uninterrupted):
    slurm_project.change("params/one.py", '"sleep": 0.1', '"sleep": 1.2')
    experiment = slurm_project.start()
    for attempt in range(2):
        path = slurm.wait_for_step(slurm_project, 5, attempt=attempt)
        job = read_job(path).selector
        slurm.end_soon(job)
        slurm.wait_until(lambda j=job, a=attempt: slurm.restarts(j) == a + 1)
        slurm.set_limit(job, 30)
    output, _ = experiment.communicate(timeout=300)
    assert experiment.returncode == 0, output
    run = TrainingRun(path)
    assert_whole(run, ["stopped", "stopped", "complete"])
    assert len({attempt.job for attempt in run.attempts()}) == 1
    assert_same_weights(run, uninterrupted)


@slow
def test_a_preempted_job_saves_comes_back_and_ends_the_same(slurm_project, slurm, uninterrupted):
    slurm_project.change("params/one.py", "poll_seconds=1", "poll_seconds=1, cpus_per_node=16")
    experiment = slurm_project.start()
    path = slurm.wait_for_step(slurm_project, 10)
    subprocess.run(
        ["sbatch", "-p", "high", "-N2", "-n2", "-c16", "-o", "/dev/null", "--wrap", "sleep 3"],
        check=True,
    )
    output, _ = experiment.communicate(timeout=400)
    assert experiment.returncode == 0, output
    run = TrainingRun(path)
    assert_whole(run, ["stopped", "complete"])
    assert slurm.restarts(read_job(path).selector) == 1
    assert_same_weights(run, uninterrupted)


@slow
@pytest.mark.parametrize("slurm", [{"KillWait": 60}], indirect=True, ids=["patient"])
def test_scancel_stops_and_does_not_requeue_and_the_same_command_goes_on(
    slurm_project, slurm, uninterrupted
):
    slurm_project.change(  # workers of a loader are signalled as well
        "toy/data.py", "shuffle=True)", "shuffle=True, num_workers=1, persistent_workers=True)"
    )
    experiment = slurm_project.start()
    path = slurm.wait_for_step(slurm_project, 10)
    subprocess.run(["scancel", read_job(path).selector], check=True)
    output, _ = experiment.communicate(timeout=300)
    assert experiment.returncode == 1
    assert "TrainerStopped" in output
    assert slurm.queue() == {}
    assert [attempt.outcome for attempt in read_attempts(path)] == ["stopped"]
    run = TrainingRun(path)
    saved = run.newest_checkpoint().step
    stop = run.events()[-1]
    assert (stop["event"], stop["step"]) == ("stop", saved), run.log()
    slurm_project.change("toy/model.py", 'in ("0", "1"))', '== "0")')
    result = slurm_project.run()
    assert result.returncode == 0, result.stdout + result.stderr
    assert_whole(run, ["stopped", "complete"])
    assert [e for e in run.events() if e["event"] == "attempt"][-1]["resume_step"] == saved
    assert_same_weights(run, uninterrupted)


def sees_a_dead_node_after(*seconds):
    settings = [{"SlurmdTimeout": each} for each in seconds]
    ids = ["quickly", "late"][: len(seconds)]
    return pytest.mark.parametrize("slurm", settings, indirect=True, ids=ids)


@slow
@sees_a_dead_node_after(10)
def test_a_node_that_dies_is_gone_on_without(slurm_project, slurm):
    slurm_project.change("params/one.py", "nodes=2", "nodes=2, max_restarts=3")
    slurm_project.change("params/one.py", "poll_seconds=1", "poll_seconds=1, min_nodes=1")
    slurm_project.change(
        "toy/model.py", 'in ("0", "1"))', '== "0" and self.trainer.world_size > 1)'
    )
    experiment = slurm_project.start()
    path = slurm.wait_for_step(slurm_project, 10)
    slurm.kill_node("n2")
    output, _ = experiment.communicate(timeout=400)
    run = TrainingRun(path)
    assert experiment.returncode == 0, output + run.layout.launcher_log(0).read_text()
    slurm.wait_until(lambda: slurm.node_state("n2") == "down*")
    assert slurm.restarts(read_job(path).selector) == 0
    assert_whole(run, ["complete"])
    worlds = [e["world_size"] for e in run.events() if e["event"] == "attempt"]
    assert (worlds[0], worlds[-1]) == (2, 1)


@slow
@sees_a_dead_node_after(10, 60)  # before the job's script does, and after it
def test_a_job_whose_node_dies_begins_again_and_ends_the_same(slurm_project, slurm, uninterrupted):
    slurm_project.change("toy/model.py", 'in ("0", "1"))', '== "0")')
    experiment = slurm_project.start()
    path = slurm.wait_for_step(slurm_project, 10)
    slurm.kill_node("n2")
    job = read_job(path).selector
    with contextlib.suppress(AssertionError):  # on a busy machine Slurm kills the script before
        slurm.wait_until(lambda: read_attempts(path)[-1].outcome, 90)
    slurm.wait_until(lambda: slurm.node_state("n2").endswith("*"))
    slurm.start_node("n2")
    output, _ = experiment.communicate(timeout=400)
    assert experiment.returncode == 0, output
    run = TrainingRun(path)
    assert [each.job for each in run.attempts()] == [job, job]
    first = run.attempts()[0].outcome
    assert first in ("failed", "stopped", None)  # stopped: by Slurm, before it was seen to be lost
    assert_whole(run, [first, "complete"])
    assert_same_weights(run, uninterrupted)


@slow
def test_an_experiment_that_was_killed_follows_its_job_and_ctrl_c_lets_it_save(
    slurm_project, slurm
):
    slurm_project.change("params/one.py", '"sleep": 0.1', '"sleep": 0.5')
    experiment = slurm_project.start()
    path = slurm.wait_for_step(slurm_project, 2)
    experiment.kill()
    experiment.communicate()
    job = read_job(path).selector
    second = slurm_project.start()
    for line in second.stdout:
        if f"Job {job} trains here already" in line:
            break
    assert list(slurm.queue()) == [job]
    second.send_signal(signal.SIGINT)
    output, _ = second.communicate(timeout=300)
    assert second.returncode == 130, output
    slurm.wait_until(lambda: slurm.queue() == {})
    [attempt] = read_attempts(path)
    run = TrainingRun(path)
    stop = run.events()[-1]
    assert (attempt.outcome, stop["event"]) == ("stopped", "stop")
    assert run.newest_checkpoint().step == stop["step"]


@slow
def test_a_crash_on_one_node_is_named_with_its_node(slurm_project):
    slurm_project.change("params/one.py", '"sleep": 0.1', '"trouble": "raise", "rank": 1')
    result = slurm_project.run(timeout=400)
    output = result.stdout + result.stderr
    assert result.returncode == 1
    [path] = slurm_project.runs()
    host = json.loads((path / "logs/attempt-0/rank-1.json").read_text())["host"]
    assert f"rank 1 on {host} failed first with ValueError: bad batch: 'x' is $HOME" in output
    assert "Lost their connection to it: rank 0." in output
    assert f"sbatch '{path.resolve()}".split("'")[0] in output
    [attempt] = read_attempts(path)
    assert attempt.outcome == "failed"


@slow
def test_inside_an_allocation_it_is_used_and_nothing_is_submitted(slurm_project, slurm):
    slurm_project.change("params/one.py", "epochs=40", "epochs=2")
    words = ["salloc", "-N2", "-n2", "--quiet", *slurm_project.command("--plain")]
    done = subprocess.run(
        words,
        cwd=slurm_project.path,
        env=slurm_project.environment(),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = slurm_project.runs()
    run = TrainingRun(path)
    [attempt] = run.attempts()
    assert run.is_complete
    assert (attempt.nodes, attempt.world_size) == (2, 2)
    assert attempt.command == ["bash", f"{path.resolve()}/job.sbatch", "here"]
    assert read_job(path) is None
    assert attempt.job in slurm.queue("--states=all")


@slow
def test_the_digits_on_two_nodes_are_read_as_well_as_on_one_machine(slurm, tmp_path):
    project = tmp_path / "digits"
    left_out = shutil.ignore_patterns("data", "logs", "reports", "__pycache__")
    shutil.copytree(REPOSITORY / "examples/digits", project, ignore=left_out)
    params = project / "params/quick.py"
    text = params.read_text()
    assert "processes_per_node=2" in text
    params.write_text(text.replace("processes_per_node=2", 'launcher="slurm", nodes=2'))
    done = subprocess.run(
        [sys.executable, "-m", "curitorch.stages.run", "digits", "-p", "quick", "--plain"],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert float(re.search(r"test/acc (\d\.\d+)", done.stdout)[1]) > 0.95
    [run] = map(TrainingRun, project.glob("data/cache/*_run"))
    [attempt] = run.attempts()
    assert (attempt.nodes, attempt.world_size) == (2, 2)


HANGS = """
    import os, time
    from pathlib import Path
    import curitorch.external.sdk as pf

    pf.init(3)
    for step in range(3):
        with pf.train_step():
            if step == 1 and os.environ["CURITORCH_ATTEMPT"] == "0":
                time.sleep(600)
    Path(os.environ["CKPT_DIR"], "state.txt").write_text("trained")
    pf.upload_checkpoint()
"""


@slow
def test_a_stalled_job_says_where_it_is_is_killed_and_submitted_again(slurm_project):
    slurm_project.write({"train.py": HANGS})
    experiment = "experiments/toy.py"
    slurm_project.change(experiment, 'external_training(inputs={"dataset": "dataset_path"})', "x")
    slurm_project.change(experiment, "train = x", 'train = external_training("train.py", sdk=True)')
    slurm_project.change(
        "params/one.py",
        "nodes=2",
        "nodes=1, max_restarts=1, stall_seconds=15, kill_stalled=True",
    )
    result = slurm_project.run(timeout=400)
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    assert "Stalled: no step has ended for 15 s, after step 1. Its processes are killed." in output
    assert re.search(r'File ".*train.py", line 9 in <module>', output)
    [path] = slurm_project.runs()
    first, second = read_attempts(path)
    assert (first.outcome, second.outcome) == ("failed", "complete")
    assert first.job != second.job
