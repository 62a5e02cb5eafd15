"""Sweeps: many records as one job array, and the same block on one machine."""

import re

import pytest

from curitorch.external.job_record import read_job
from curitorch.external.rundir import TrainingRun
from curitorch.stages.failure import TrainerFailed, TrainerStopped
from curitorch.stages.sweep import table

EXPERIMENT = """
    import curifactory as cf
    from curitorch.stages import external_training, training_sweep

    train = external_training(
        "train.py", sdk=True, options=lambda record: {"number": record.params.number}
    )

    @cf.stage(["run"], ["square"])
    def read(record, run):
        return int(run.metrics()["square"].iloc[-1])

    def run(param_sets, manager):
        records = [cf.Record(manager, params) for params in param_sets]
        with training_sweep(train, records, at_once=AT_ONCE) as trained:
            for record in trained:
                read(record)
        print("never said where one failed")
"""

SCRIPT = """
    import argparse, os
    from pathlib import Path
    import curitorch.external.sdk as pf

    parser = argparse.ArgumentParser()
    parser.add_argument("--number", type=int)
    number = parser.parse_args().number
    with Path(os.environ["WITNESS"]).open("a") as file:
        file.write(f"{number}\\n")
    if number == 5 and not Path("mended").exists():
        raise ValueError("five is not to be had")
    pf.init(1)
    with pf.train_step():
        pass  # hangs
    square = number * number
    pf.metric({"iteration": 1, "square": square})
    Path(os.environ["CKPT_DIR"], "square.txt").write_text(str(square))
    pf.upload_checkpoint()
"""

PARAMS = """
    import os
    from dataclasses import dataclass
    from curitorch.params import LaunchParams, SlurmParams, TrainingParams

    @dataclass
    class Params(TrainingParams):
        number: int = 0

    def get_params():
        launch = LaunchParams(launcher="LAUNCHER")
        slurm = SlurmParams(poll_seconds=1, submit=SUBMIT)
        return [
            Params(name=f"number {n}", number=n, launch=launch, slurm=slurm) for n in NUMBERS
        ]
"""


def write(project, monkeypatch, *, launcher, numbers, at_once="2", submit="True"):
    monkeypatch.setenv("WITNESS", str(project.path / "witness"))
    params = PARAMS.replace("LAUNCHER", launcher).replace("NUMBERS", numbers)
    project.write(
        {
            "train.py": SCRIPT,
            "experiments/toy.py": EXPERIMENT.replace("AT_ONCE", at_once),
            "params/one.py": params.replace("SUBMIT", submit),
        }
    )
    return project


def trained(project):
    """Return the numbers that scripts were begun with, since the last time."""
    witness = project.path / "witness"
    numbers = sorted(map(int, witness.read_text().split())) if witness.exists() else []
    witness.unlink(missing_ok=True)
    return numbers


@pytest.mark.slow
def test_a_sweep_on_one_machine_goes_on_after_a_failure_and_names_it(project, monkeypatch):
    write(project, monkeypatch, launcher="local", numbers="(4, 5)")
    result = project.run()
    output = result.stdout + result.stderr
    assert result.returncode == 1
    assert "1 of 2 trainings failed; the same experiment trains only these:" in output
    assert "number 5  rank 0: ValueError: five is not to be had" in output
    assert output.count("never said") == 1  # while curifactory maps
    assert trained(project) == [4, 5]
    (project.path / "mended").touch()
    again = project.run()
    assert again.returncode == 0, again.stdout + again.stderr
    assert trained(project) == [5]
    assert again.stdout.count("never said") == 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_eight_are_one_array_one_fails_and_only_that_one_is_trained_again(
    project, slurm, monkeypatch
):
    write(project, monkeypatch, launcher="slurm", numbers="range(1, 9)")
    result = project.run(timeout=700)
    output = result.stdout + result.stderr
    assert result.returncode == 1, output
    assert "1 of 8 trainings failed" in output
    assert "number 5  rank 0: ValueError: five is not to be had" in output
    assert trained(project) == [*range(1, 9)]
    runs = [TrainingRun(path) for path in project.runs()]
    assert sum(run.is_complete for run in runs) == 7
    jobs = [read_job(run.path) for run in runs]
    assert len({job.job_id for job in jobs}) == 1
    assert sorted(job.index for job in jobs) == [*range(8)]
    squares = sorted(int(run.metrics()["square"].iloc[-1]) for run in runs if run.is_complete)
    assert squares == [n * n for n in range(1, 9) if n != 5]
    [script] = project.path.glob("data/cache/*/slurm/sweep.sbatch")
    assert "#SBATCH --array=0-7%2" in script.read_text()
    report = (project.path / "reports/_latest/index.html").read_text()
    assert "five is not to be had" in report
    (project.path / "mended").touch()
    again = project.run(timeout=300)
    assert again.returncode == 0, again.stdout + again.stderr
    assert trained(project) == [5]
    assert "7/8" not in again.stdout
    assert all(run.is_complete for run in runs)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_member_that_stalls_says_where_it_is_is_killed_and_trained_again(
    project, slurm, monkeypatch
):
    write(project, monkeypatch, launcher="slurm", numbers="(1, 2)")
    hangs = 'time.sleep(600 * (number == 2 and os.environ["CURITORCH_ATTEMPT"] == "0"))'
    project.change("train.py", "import argparse, os", "import argparse, os, time")
    project.change("train.py", "pass  # hangs", hangs)
    limits = "max_restarts=1, stall_seconds=15, kill_stalled=True"
    project.change("params/one.py", 'launcher="slurm"', f'launcher="slurm", {limits}')
    result = project.run(timeout=600)
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    said = (
        "Stalled: number 2: no step has ended for 15 s, after the start. Its processes are killed"
    )
    assert output.count("Stalled: ") == output.count(said) == 1
    assert re.search(r'File ".*train.py", line 14 in <module>', output)
    first, second = [TrainingRun(path) for path in project.runs()]
    outcomes = sorted([each.outcome for each in run.attempts()] for run in (first, second))
    assert outcomes == [["complete"], ["failed", "complete"]]


def test_only_the_scripts_are_written_where_nothing_is_to_be_submitted(project, monkeypatch, slurm):
    write(project, monkeypatch, launcher="slurm", numbers="(1, 2)", submit="False")
    result = project.run()
    assert result.returncode == 1
    assert "JobNotSubmitted" in result.stdout + result.stderr
    assert len(list(project.path.glob("data/cache/*_run/job.sbatch"))) == 2
    [script] = project.path.glob("data/cache/*/slurm/sweep.sbatch")
    assert "#SBATCH --array=0-1%2" in script.read_text()
    assert slurm.queue() == {}


def test_no_sweep_runs_less_than_one_at_once(project, monkeypatch):
    write(project, monkeypatch, launcher="local", numbers="(1,)", at_once="0")
    result = project.run()
    assert result.returncode == 1
    assert "at_once is 0, expected a whole number of at least 1" in result.stdout + result.stderr


def test_the_table_names_the_member_its_rank_and_its_log(tmp_path):
    failed = TrainerFailed(
        "x", exit_code=1, rank=1, cause="ValueError: no", log=tmp_path / "l", log_tail=""
    )
    stopped = TrainerStopped("Job 12 was cancelled before it began. Run it again.")
    lines = table({"a": failed, "long name": stopped}, of=8).splitlines()
    assert lines == [
        "2 of 8 trainings failed; the same experiment trains only these:",
        f"  a          rank 1: ValueError: no  ({tmp_path / 'l'})",
        "  long name  Job 12 was cancelled before it began. Run it again.",
    ]
