"""What Slurm's commands say, read; with commands of the same names that a test writes."""

import os

import pytest

from curitorch.external.job_record import JobRecord, read_job, write_job
from curitorch.external.run_lock import RunLocked
from curitorch.external.rundir import TrainingRun
from curitorch.params import CheckpointParams, LaunchParams, SlurmParams
from curitorch.stages.launchers import LocalLauncher
from curitorch.stages.slurm import queue
from curitorch.stages.slurm.following import Followed, Follower
from curitorch.stages.slurm.job import SubmittedJob, find_job, look_at, start_job
from curitorch.stages.slurm.script import job_name

LINES = """\
4711|N/A|COMPLETED|digits-1|None
4800|N/A|PENDING|digits-1|Resources
4712|0|RUNNING|sweep-1|None
4712|1|PENDING|sweep-1|JobArrayTaskLimit
4712|10|FAILED|sweep-1|NonZeroExitCode
"""


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Return a function that makes a command of Slurm's print something, or fail."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)

    def make(name, prints="", status=0):
        (folder / f"{name}.out").write_text(prints)
        script = f'#!/bin/sh\necho "$@" >>"{folder}/{name}.asked"\n'
        script += f'cat "{folder}/{name}.out"\nexit {status}\n'
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
        return folder / f"{name}.asked"

    return make


def test_jobs_and_members_of_arrays_are_told_apart():
    jobs = queue.parse_queue(LINES)
    assert [(job.job_id, job.index, job.state) for job in jobs] == [
        ("4711", None, "COMPLETED"),
        ("4712", 0, "RUNNING"),
        ("4712", 1, "PENDING"),
        ("4712", 10, "FAILED"),
        ("4800", None, "PENDING"),
    ]
    assert [job.has_ended for job in jobs] == [True, False, False, True, False]


def test_what_is_no_line_of_ours_is_let_be():
    assert queue.parse_queue("slurm_load_jobs error: x\n\n1|2\n") == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("COMPLETED|0:0\n", "COMPLETED"),
        ("CANCELLED by 1000|0:15\n", "CANCELLED with exit code 0 by signal 15"),
        ("PREEMPTED|0:0\nTIMEOUT|0:0\n", "TIMEOUT"),
        ("FAILED|3:0\n", "FAILED with exit code 3"),
        ("OUT_OF_MEMORY\n", "OUT_OF_MEMORY"),
        ("PENDING|0:0\n", "None"),
        ("", "None"),
    ],
)
def test_the_accounting_has_the_last_word(text, said):
    assert str(queue.parse_accounting(text)) == said


def test_one_command_asks_for_all_jobs(commands):
    asked = commands("squeue", LINES)
    jobs = [JobRecord("digits-1"), JobRecord("sweep-1", "4712", 1), JobRecord("gone-1", "12")]
    found = queue.look(jobs)
    assert [found[job] and found[job].state for job in jobs] == ["PENDING", "PENDING", None]
    [line] = asked.read_text().splitlines()
    assert "--name=digits-1,gone-1,sweep-1" in line


def test_sbatch_gives_the_id_alone_also_on_a_federation(commands, tmp_path):
    commands("sbatch", "4711;cluster\n")
    assert queue.submit(tmp_path / "job.sbatch", environment=os.environ) == "4711"


def test_a_command_that_fails_says_what_it_said(commands, tmp_path):
    commands("sbatch", "sbatch: error: invalid partition specified: gpu", status=1)
    with pytest.raises(queue.SlurmUnreachable, match=r"sbatch ended with 1: .*invalid partition"):
        queue.submit(tmp_path / "job.sbatch", environment=os.environ)


def test_without_slurm_there_is_one_sentence(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(
        queue.SlurmUnreachable, match=r"There is no squeue here\. Run the experiment"
    ):
        queue.look([JobRecord("x")])


def test_without_accounting_the_end_of_an_old_job_is_unknown(commands):
    asked = commands("sacct", "Slurm accounting storage is disabled", status=1)
    assert queue.ending(JobRecord("x", "12")) == queue.Ending("UNKNOWN")
    assert [line.split()[-1] for line in asked.read_text().splitlines()] == ["-X", "-c"]
    commands("sacct", "OUT_OF_MEMORY|0:9\n")
    assert queue.ending(JobRecord("x", "12")) == queue.Ending("OUT_OF_MEMORY", 0, 9)


REMEMBERED = [{"MinJobAge": 2, "accounts": True}, {"MinJobAge": 2}]


@pytest.mark.slow
@pytest.mark.parametrize("slurm", REMEMBERED, indirect=True, ids=["database", "log"])
def test_a_job_that_the_queue_forgot_is_remembered_with_its_end(slurm, tmp_path):
    script = tmp_path / "job"
    script.write_text("#!/bin/sh\n#SBATCH --output=/dev/null\nexit ${SLURM_ARRAY_TASK_ID:-3}\n")
    alone = JobRecord("job", queue.submit(script, environment=os.environ))
    array = queue.submit(script, environment=os.environ, options=["--array=0-4:4"])
    members = [JobRecord("job", array, index) for index in (0, 4)]
    held = JobRecord("job", queue.submit(script, environment=os.environ, options=["--hold"]))
    queue.cancel(held)
    jobs = [alone, *members, held]
    slurm.wait_until(lambda: set(queue.look(jobs).values()) == {None})
    endings = [queue.Ending("FAILED", 3, 0), queue.Ending("COMPLETED", 0, 0)]
    endings += [queue.Ending("FAILED", 4, 0), queue.Ending("CANCELLED", 0, 0)]
    if (slurm.folder / "slurmdbd.conf").exists():
        slurm.wait_until(lambda: [*map(queue.ending, jobs)] == endings)  # it is told a bit later
    else:  # members of arrays it cannot tell apart
        assert queue.ending(alone) == endings[0]
        assert {queue.ending(each).state for each in members} == {"UNKNOWN"}


def test_a_job_is_found_by_its_record_or_by_its_name(commands, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    commands("squeue", f"12|N/A|PENDING|{job_name(run)}|Priority\n")
    assert find_job(run).id == "12"  # somebody submitted it by hand
    assert read_job(run) == JobRecord(job_name(run), "12")
    commands("squeue", "15|3|RUNNING|sweep-1|None\n15|4|RUNNING|sweep-1|None\n")
    write_job(run, JobRecord("sweep-1", "15", 3))
    assert find_job(run).id == "15_3"
    commands("squeue", "15|3|COMPLETED|sweep-1|None\n")
    assert find_job(run) is None


def test_a_job_that_was_submitted_a_moment_before_the_kill_is_found(commands, tmp_path):
    run = tmp_path / "run"
    write_job(run, JobRecord("sweep-1", index=3))
    commands("squeue", "15|3|PENDING|sweep-1|None\n")
    assert find_job(run).id == "15_3"


def test_a_local_launch_is_refused_beside_a_job(commands, tmp_path):
    run = TrainingRun(tmp_path / "run")
    write_job(run.path, JobRecord("x", "12"))
    commands("squeue", "12|N/A|RUNNING|x|None\n")
    launcher = LocalLauncher(run, ["-m", "x"], CheckpointParams(), LaunchParams())
    with pytest.raises(
        RunLocked, match=r"is being trained by job 12\. Follow it with launcher='sl"
    ):
        launcher.complete(None, None)


def test_nothing_is_submitted_where_only_the_script_is_wanted(commands, tmp_path):
    asked = commands("sbatch", "12")
    commands("squeue", "")
    assert start_job(tmp_path, LaunchParams(), SlurmParams(submit=False)) is None
    assert not asked.exists()


def test_an_allocation_that_is_too_small_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n1")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "1")
    with pytest.raises(ValueError, match="This allocation has 1 nodes, but the launch needs 2"):
        start_job(tmp_path, LaunchParams(nodes=2), SlurmParams())


def test_a_job_that_is_passing_back_into_the_queue_has_not_ended(commands, tmp_path):
    followed = Followed(TrainingRun(tmp_path), SubmittedJob(JobRecord("x", "12")))
    states = ["RUNNING", "PREEMPTED", "PENDING", "NODE_FAIL", "NODE_FAIL"]
    ended = []
    for state in states:
        commands("squeue", f"12|N/A|{state}|x|None\n")
        followed.take(look_at([followed.job])[followed.job])
        ended.append(followed.has_ended)
    assert ended == [False, False, False, False, True]


def test_a_queue_that_does_not_answer_is_asked_again(commands, tmp_path, caplog):
    followed = Followed(TrainingRun(tmp_path), SubmittedJob(JobRecord("x", "12")))
    follower = Follower([followed], poll_seconds=0.001)
    commands("squeue", "slurm_load_jobs error: Unable to contact slurm controller", status=1)
    assert not follower.has_ended()
    follower.hurry(1)
    assert not follower.has_ended()
    assert len([r for r in caplog.records if "asked again" in r.message]) == 1
    commands("squeue", "")
    follower.hurry(1)
    assert follower.has_ended()
