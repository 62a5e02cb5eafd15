"""A Slurm of two nodes for a whole session, and projects that train on it."""

import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from curitorch.external.journal import read_journal

_SPEC = importlib.util.spec_from_file_location(
    "slurm_cluster", Path(__file__).with_name("cluster.py")
)
cluster = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(cluster)

_TOY = importlib.util.spec_from_file_location(
    "slurm_toy", Path(__file__).parents[1] / "conftest.py"
)
toy = sys.modules["slurm_toy"] = importlib.util.module_from_spec(_TOY)
_TOY.loader.exec_module(toy)


@contextlib.contextmanager
def running(*, accounts=False, **settings):
    """Run a cluster, and give the path of its configuration."""
    reason = cluster.missing(accounts=accounts)
    if reason is not None:
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(  # in /tmp, as sockets need short paths
        prefix="slurm-", dir="/tmp", ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        try:
            variables = cluster.up(folder, accounts=accounts, **settings)
            yield variables["SLURM_CONF"]
        finally:
            cluster.down(folder)


@pytest.fixture(scope="session")
def slurm_conf():
    """Return the path of the configuration of a cluster that runs until the session ends."""
    with running() as path:
        yield path


@pytest.fixture
def slurm(request, monkeypatch):
    """Point this test's processes to the cluster; afterwards no job of it is left.

    Parametrized with lines of slurm.conf, the test has a cluster of its own.
    """
    settings = getattr(request, "param", None)
    if settings is None:
        yield from _pointed_to(request.getfixturevalue("slurm_conf"), monkeypatch)
    else:
        with running(**settings) as path:
            yield from _pointed_to(path, monkeypatch)


def _pointed_to(slurm_conf, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", slurm_conf)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in [name for name in os.environ if name.startswith("SLURM_J")]:
        monkeypatch.delenv(name)
    yield Slurm(Path(slurm_conf).parent)
    subprocess.run(["scancel", "--user=root"], check=False)
    slurm = Slurm(Path(slurm_conf).parent)
    slurm.wait_until(lambda: slurm.queue() == {})


@dataclass(frozen=True)
class Slurm:
    """The cluster that lies in `folder`, as its own commands tell."""

    folder: Path

    def kill_node(self, name: str) -> None:
        """Kill all there is of a node; the controller has yet to see it."""
        cluster.kill_node(self.folder, name)

    def start_node(self, name: str) -> None:
        cluster.start_node(self.folder, name)

    def node_state(self, name: str) -> str:
        """Return such as `idle`, or `down*`, whose star says that nobody answers there."""
        words = ["sinfo", "-h", "-n", name, "-p", "main", "-o", "%T"]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    def queue(self, *options: str) -> dict[str, str]:
        """Return the states of jobs that have not ended, or of those that options name."""
        words = ["squeue", "-h", "--array", *options, "--format=%i %T"]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        return dict(line.split() for line in done.stdout.splitlines())

    def restarts(self, job: str) -> int:
        done = subprocess.run(
            ["scontrol", "-o", "show", "job", job], capture_output=True, text=True, check=True
        )
        return int(done.stdout.split("Restarts=")[1].split()[0])

    def set_limit(self, job: str, minutes: int) -> None:
        words = ["scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}"]
        subprocess.run(words, check=True)

    def end_soon(self, job: str) -> None:
        """Give a job 40 to 100 more seconds: limits are minutes, looked at every 30 s."""
        words = ["squeue", "-h", "-j", job, "--format=%M"]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        minutes, seconds = done.stdout.strip().split(":")[-2:]
        self.set_limit(job, int(minutes) + 1 + (int(seconds) > 20))

    def wait_until(self, is_so, seconds: float = 240):
        deadline = time.monotonic() + seconds
        while not (found := is_so()):
            assert time.monotonic() < deadline, f"not within {seconds} s; queue: {self.queue()}"
            time.sleep(0.2)
        return found

    def wait_for_step(self, project, step: int, *, attempt: int = 0, seconds: float = 240) -> Path:
        """Wait until a journal of the project has a step of an attempt; returns its run."""

        def found():
            for path in project.runs():
                current = -1
                for event in read_journal(path / "journal.jsonl"):
                    if event["event"] == "attempt":
                        current = event["attempt"]
                    if event["event"] == "step" and current >= attempt and event["step"] >= step:
                        return path
            return None

        return self.wait_until(found, seconds)


@pytest.fixture
def slurm_project(project, slurm):
    """Two nodes with one process each; a tenth of a second per step in the first two attempts."""
    project.change("toy/model.py", '== "0")', 'in ("0", "1"))')
    project.write(
        {
            "params/one.py": """
                from curitorch.params import (
                    CheckpointParams, LaunchParams, SlurmParams, TrainerParams, TrainingParams
                )

                def get_params():
                    return [TrainingParams(
                        name="one",
                        trainer=TrainerParams(
                            model="toy.model:Net", data="toy.data:loaders", epochs=40, batch_size=8,
                            model_args={"sleep": 0.1},
                            trainer_args={"enable_model_summary": False, "log_every_n_steps": 1},
                        ),
                        launch=LaunchParams(accelerator="cpu", launcher="slurm", nodes=2),
                        slurm=SlurmParams(poll_seconds=1, warning_seconds=5),
                    )]
            """
        }
    )
    return project
