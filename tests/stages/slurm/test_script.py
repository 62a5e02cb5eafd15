"""What stands in a job's script, without a Slurm."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from curitorch.params import LaunchParams, SlurmParams
from curitorch.stages.slurm.script import header, job_name, render_job, write_script

HOSTILE = "a 'run' of $HOME & 100% \"x\" ü;"


def render(run, launch=None, slurm=None, program=("-m", "my.trainer"), **options):
    options = {"environment": {}, "folder": run.parent, **options}
    return render_job(
        run, program, launch or LaunchParams(nodes=2), slurm or SlurmParams(), **options
    )


def sbatch_lines(text):
    return [line for line in text.splitlines() if line.startswith("#SBATCH ")]


def test_every_setting_becomes_a_line_of_sbatch_and_unset_ones_do_not(tmp_path):
    plain = sbatch_lines(render(tmp_path))
    for absent in ("partition", "account", "time", "mem", "constraint", "gpus", "cpus", "no-kill"):
        assert not any(f"--{absent}" in line for line in plain)
    slurm = SlurmParams(
        partition="gpu",
        account="physics",
        time_limit="8:00:00",
        gpus_per_node=4,
        cpus_per_node=32,
        memory="64G",
        constraint="a100",
        sbatch=["--exclude=node[3-5]"],
        warning_seconds=300,
    )
    lines = sbatch_lines(render(tmp_path, slurm=slurm))
    for line in (
        *("--partition=gpu", "--account=physics", "--time=8:00:00", "--gpus-per-node=4"),
        *("--cpus-per-task=32", "--mem=64G", "--constraint=a100", "--exclude=node[3-5]"),
        *("--nodes=2", "--ntasks-per-node=1", "--requeue", "--signal=B:TERM@300"),
        "--open-mode=append",
    ):
        assert f"#SBATCH {line}" in lines


def test_modules_and_set_up_commands_come_before_the_training_in_their_order(tmp_path):
    slurm = SlurmParams(modules=["cuda/12", "my mod"], setup=['export A="b c"', "ulimit -n 65536"])
    lines = render(tmp_path, slurm=slurm, environment={"B": "it's $HOME"}).splitlines()
    first = lines.index("module load cuda/12")
    assert lines[first + 1 : first + 4] == [
        *("module load 'my mod'", 'export A="b c"', "ulimit -n 65536"),
    ]
    assert "export B='it'\"'\"'s $HOME'" in lines[first:]


def test_bash_finds_no_fault_in_it_and_reads_hostile_words_as_they_were(tmp_path):
    run = tmp_path / HOSTILE
    program = ["-m", "my.trainer", "--a=$(touch gone)", "--b='\"", "--c=", "--d=ü\n*"]
    path = write_script(run, render(run, program=program, environment={"X": HOSTILE}))
    subprocess.run(["bash", "-n", str(path)], check=True)
    assert path.stat().st_mode & 0o777 == 0o700
    until = path.read_text().split("\njob=")[0]
    shown = '\nprintf "%s\\0" "$run" "$python" "$X" "${trainer[@]}"'
    done = subprocess.run(
        ["bash", "-c", until + shown], cwd=tmp_path, capture_output=True, check=True
    )
    words = done.stdout.decode().split("\0")[:-1]
    assert words == [str(run.resolve()), sys.executable, HOSTILE, *program]
    assert not (tmp_path / "gone").exists()


def test_a_percent_in_a_path_is_not_taken_for_a_pattern_of_sbatch(tmp_path):
    run = tmp_path / "50%j"
    [output] = [line for line in sbatch_lines(render(run)) if "--output" in line]
    assert shlex.split(output)[1].endswith("/50%%j/slurm/job-%j.log")


def test_a_newline_in_a_path_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has a newline: sbatch cannot"):
        render(tmp_path / "a\nb")


def test_the_rendezvous_keeps_to_its_rules(tmp_path):
    text = render(tmp_path)
    assert 'is_host=$((SLURM_PROCID == 0))"' in text
    assert '--rdzv-id="$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}.$CURITORCH_ATTEMPT"' in text
    assert '--nnodes="$nodes"' in text
    assert "--max-restarts=0" in text
    assert "--wait=60" in text
    assert text.rstrip().endswith('exit "$rc"')


def test_elastic_nodes_survive_a_node_and_restart_in_torchrun(tmp_path):
    text = render(tmp_path, LaunchParams(nodes=4, max_restarts=3), SlurmParams(min_nodes=2))
    assert "#SBATCH --no-kill" in text
    assert "#SBATCH --nodes=4" in text
    assert '--nnodes="2:$nodes"' in text
    assert "--max-restarts=3" in text
    assert "--no-kill --wait=0" in text


@pytest.mark.parametrize(
    ("launch", "sentence"),
    [
        ({"nodes": 2, "max_restarts": 1}, "min_nodes is 3, more than launch.nodes, 2."),
        ({"nodes": 4}, "but launch.max_restarts is 0. Write max_restarts=3, say."),
    ],
)
def test_elastic_settings_that_do_not_fit_are_refused(tmp_path, launch, sentence):
    with pytest.raises(ValueError, match=sentence):
        render(tmp_path, LaunchParams(**launch), SlurmParams(min_nodes=3))


def test_a_script_with_the_sdk_learns_where_it_saves(tmp_path):
    saves = tmp_path / "my saves"
    text = render(tmp_path, saves=saves)
    assert f'books begin "${{1:-sbatch}}" "$nodes" "$processes" \'{saves}\')' in text


def test_no_rank_of_a_job_around_is_handed_down(tmp_path):
    assert "\nunset RANK LOCAL_RANK " in render(tmp_path)


def test_jobs_are_named_for_their_run_directory_alone(tmp_path, monkeypatch):
    name = job_name(tmp_path / HOSTILE)
    assert name.isascii()
    assert len(job_name(tmp_path / ("x" * 200))) < 80
    assert "," not in name and " " not in name
    assert name != job_name(tmp_path / "other" / HOSTILE)
    monkeypatch.chdir(tmp_path)
    assert job_name(Path(HOSTILE)) == name


def test_the_log_goes_where_it_is_told(tmp_path):
    log = tmp_path / "slurm" / "sweep-%A_%a.log"
    lines = header(LaunchParams(), SlurmParams(), name="x", log=log, folder=tmp_path)
    assert f"#SBATCH --output={log}" in lines
    assert f"#SBATCH --chdir={tmp_path}" in lines


@pytest.mark.parametrize(
    ("number", "state", "outcome", "requeued", "status"),
    [
        ("TERM", "RUNNING", "stopped", True, 143),  # a preemption
        ("TERM", "SIGNALING", "stopped", True, 143),  # the time limit
        ("TERM", "COMPLETING", "stopped", False, 143),  # scancel
        ("USR1", "RUNNING", "stopped", False, 143),  # the experiment
        ("TERM", "RUNNING", "stuck", False, 143),
        ("TERM", "RUNNING", "failed", False, 9),
        ("TERM", "RUNNING", "complete", False, 0),
    ],
)
def test_the_script_tells_apart_why_it_is_signalled(
    tmp_path, number, state, outcome, requeued, status
):
    ended, said = play(tmp_path, outcome=outcome, state=state, during=f"kill -{number} $$")
    assert ended == status
    assert "order stop" in said
    asked = "pause" if number == "TERM" and state != "COMPLETING" else "stop"
    assert f"books end 9 {asked}" in said
    assert ("scontrol requeue 4711" in said) == requeued


@pytest.mark.parametrize(
    ("node", "job", "outcome", "told", "requeued"),
    [
        ("allocated*", "RUNNING", "lost", "lost", True),
        ("down*", "RUNNING", "failed", "lost", False),  # a rank failed by itself
        ("down*", "CANCELLED", "failed", "", False),
        ("allocated", "RUNNING", "failed", "", False),
    ],
)
def test_a_job_that_lost_a_node_requeues_itself(tmp_path, node, job, outcome, told, requeued):
    during = "echo stop >&3"
    ended, said = play(tmp_path, outcome=outcome, during=during, node=node, job=job)
    assert ended == 9
    assert f"books end 9 {told}" in said
    assert ("scontrol requeue 4711" in said) == requeued


def test_a_busy_controller_does_not_make_a_stop_of_a_lost_node(tmp_path):
    during = "kill -TERM $$"  # Slurm ends a job whose node it has lost
    busy = '[ -e "$run/busy" ] || { touch "$run/busy"; return 1; }'
    ended, said = play(
        tmp_path, outcome="lost", during=during, state="COMPLETING", node="down*", busy=busy
    )
    assert ended == 9
    assert "books end 9 lost" in said


def play(tmp_path, *, outcome, during, state="RUNNING", node="allocated", job="RUNNING", busy=":"):
    """Run the script, with Slurm's commands replaced by functions; returns its status and theirs.

    Args:
        tmp_path: Where the run is.
        outcome: What the run's books say.
        during: What happens while srun runs, until it is given an order.
        state: squeue's word on the job.
        node: sinfo's word on its nodes.
        job: scontrol's word on the job.
        busy: What happens first when sinfo is asked.
    """
    run = tmp_path / "run"
    (run / "logs/attempt-0").mkdir(parents=True)
    text = render(run)
    fakes = f"""
srun() {{ {during}; read -r order <&3; echo "order $order" >>"$run/said"; return 9; }}
squeue() {{ echo {state}; }}
sinfo() {{ {busy}; echo '{node}'; }}
scontrol() {{ echo "scontrol $*" >>"$run/said"; echo JobState={job}; }}
sleep() {{ command sleep 0.1; }}
books() {{
    echo "books $*" >>"$run/said"
    if [ "$1" = begin ]; then echo "export CURITORCH_ATTEMPT=0"; else echo {outcome}; fi
}}
"""
    head, body = text.split("\nbooks() ", 1)
    script = head + fakes + body.split("\n", 1)[1]
    environment = {**os.environ, "SLURM_JOB_ID": "4711", "SLURM_RESTART_COUNT": "1"}
    environment.pop("SLURM_ARRAY_JOB_ID", None)
    done = subprocess.run(
        ["bash", "-c", script, "job"],
        env=environment,
        check=False,
        capture_output=True,
        timeout=200,
    )
    return done.returncode, (run / "said").read_text().splitlines()
