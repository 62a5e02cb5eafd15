"""What our Slurm launcher costs, against the same sbatch file by hand, and while it follows jobs.

    python benchmarks/launch.py [--repeats 5] [--jobs 32] [--seconds 60]

1. From submission to the first step of a training: `run_training` with launcher="slurm", and
   `sbatch job.sbatch` of the very file that it wrote. Taken in turns; the clock starts before the
   one is called and before the other's sbatch, and ends at the time that rank 0 wrote for its first
   step. Aim: a ratio of at most 1.05.
2. CPU time of following 32 jobs that train, 20 journal lines a second each, as a sweep follows
   them: this process and every squeue that it starts, as a share of one core. Aim: below 5 %.

It uses the Slurm that is there, else one of two nodes that it starts (root, `make slurm`).
"""

import argparse
import contextlib
import importlib.util
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from curitorch.external.job_record import JobRecord
from curitorch.external.journal import Journal, read_journal
from curitorch.external.rundir import TrainingRun
from curitorch.params import CheckpointParams, LaunchParams, SlurmParams
from curitorch.stages.slurm.following import TICK_SECONDS, Followed, Follower
from curitorch.stages.slurm.job import SubmittedJob, start_job
from curitorch.stages.slurm.launcher import SlurmLauncher

CLUSTER = Path(__file__).resolve().parents[1] / "tests/stages/slurm/cluster.py"

SCRIPT = """
import os
from pathlib import Path
import curitorch.external.sdk as pf

pf.init(1)
with pf.train_step():
    pass
Path(os.environ["CKPT_DIR"], "state.txt").write_text("1")
pf.upload_checkpoint()
"""


@contextlib.contextmanager
def a_slurm() -> Iterator[None]:
    """Use the cluster that is there, or one of our own."""
    if "SLURM_CONF" in os.environ or Path("/etc/slurm/slurm.conf").exists():
        yield
        return
    spec = importlib.util.spec_from_file_location("cluster", CLUSTER)
    cluster = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(cluster)
    reason = cluster.missing()
    if reason is not None:
        sys.exit(f"This benchmark {reason}.")
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp") as folder:
        try:
            os.environ.update(cluster.up(Path(folder)), GLOO_SOCKET_IFNAME="lo")
            yield
        finally:
            cluster.down(Path(folder))


def first_step(run: Path) -> float:
    """Wait for the first step of a run, and return when it ended."""
    while True:
        for event in read_journal(run / "journal.jsonl"):
            if event["event"] == "step":
                return float(event["time"])
        time.sleep(0.05)


def launcher(run: Path, script: Path) -> SlurmLauncher:
    """Return what trains a run by a script that does one step on one node."""
    return SlurmLauncher(
        TrainingRun(run),
        [str(script)],
        CheckpointParams(),
        LaunchParams(launcher="slurm"),
        SlurmParams(poll_seconds=10),
        sdk=True,
    )


def ours(folder: Path, script: Path, number: int) -> float:
    """Return the seconds from the call to the first step, by our launcher."""
    run = folder / f"ours-{number}"
    begun = time.time()
    launch = launcher(run, script)
    launch.write()
    job = start_job(run, launch.launch, launch.slurm)
    follower = Follower([Followed(launch.run, job)], poll_seconds=launch.slurm.poll_seconds)
    while not follower.has_ended():
        time.sleep(TICK_SECONDS)
    return first_step(run) - begun


def by_hand(folder: Path, script: Path, number: int) -> float:
    """Return the seconds from sbatch to the first step, of the same file submitted by hand."""
    run = folder / f"hand-{number}"
    path = launcher(run, script).write()
    begun = time.time()
    subprocess.run(["sbatch", "--parsable", str(path)], check=True, stdout=subprocess.DEVNULL)
    seconds = first_step(run) - begun
    while not TrainingRun(run).is_complete:
        time.sleep(0.1)
    return seconds


def submission(folder: Path, repeats: int) -> None:
    """Print how long it takes to the first step, ours and by hand in turns."""
    script = folder / "train.py"
    script.write_text(SCRIPT)
    taken: dict[str, list[float]] = {"ours": [], "by hand": []}
    by_hand(folder, script, -1)  # warms the caches of both
    for number in range(repeats):
        pair = [("ours", ours), ("by hand", by_hand)]
        for name, measure in pair if number % 2 else reversed(pair):
            taken[name].append(measure(folder, script, number))
    for name, seconds in taken.items():
        shown = "  ".join(f"{each:.2f}" for each in seconds)
        print(f"{name:8}  median {statistics.median(seconds):6.3f} s   {shown}")
    ratio = statistics.median(taken["ours"]) / statistics.median(taken["by hand"])
    print(f"submission to first step: ratio {ratio:.3f} (aim: at most 1.05)")


def following(folder: Path, jobs: int, seconds: float) -> None:
    """Print the CPU time of following so many running jobs."""
    words = ["sbatch", "--parsable", f"--array=0-{jobs - 1}", "--job-name=followed"]
    words += ["--output=/dev/null", "--oversubscribe", "--wrap", "sleep 600"]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    job_id = done.stdout.strip()
    runs = [folder / f"followed-{number}" for number in range(jobs)]
    writer = subprocess.Popen(
        [sys.executable, __file__, "--write", json.dumps([str(run) for run in runs])]
    )
    try:
        time.sleep(3)  # the writer imports
        followed = [
            Followed(TrainingRun(run), SubmittedJob(JobRecord("followed", job_id, index)))
            for index, run in enumerate(runs)
        ]
        follower = Follower(followed, poll_seconds=10)
        before, begun = cpu_seconds(), time.monotonic()
        while time.monotonic() - begun < seconds:
            assert not follower.has_ended()
            time.sleep(TICK_SECONDS)
        share = (cpu_seconds() - before) / (time.monotonic() - begun)
        steps = sum(each.progress.step for each in followed)
        running = sum(each.state == "RUNNING" for each in followed)
        print(f"following {jobs} jobs: {100 * share:.2f} % of a core (aim: below 5 %)")
        print(f"({running} of them ran; {steps} steps were read)")
    finally:
        writer.terminate()
        writer.wait()
        subprocess.run(["scancel", job_id], check=False)


def write(runs: list[str]) -> None:
    """Write twenty lines a second into the journal of each run, as trainers do."""
    journals = [Journal(Path(run) / "journal.jsonl") for run in runs]
    for journal in journals:
        journal.attempt(0, resume_step=0, world_size=1)
    step = 0
    while True:
        step += 10
        for journal in journals:
            for each in range(step - 9, step + 1):
                journal.write("step", step=each, epoch=0, seconds=0.1)
        time.sleep(0.5)


def cpu_seconds() -> float:
    """Return the CPU time of this process, and of its children that ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--write", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write(options.write)
    folder = Path(tempfile.mkdtemp(prefix="launch-"))
    try:
        with a_slurm():
            following(folder, options.jobs, options.seconds)
            submission(folder, options.repeats)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
