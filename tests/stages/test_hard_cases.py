"""Broken on purpose: a disk that is really full, torn artifacts, everything signalled at once."""

import re
import signal
import subprocess
import time

import psutil
import pytest

from curitorch.external.rundir import TrainingRun
from curitorch.external.schema import UnreadableFile
from curitorch.stages.processes import survivors
from tests.external.stores.disks import small_disk

pytestmark = pytest.mark.slow


def test_a_full_disk_is_named_and_the_run_goes_on_when_there_is_room(project, tmp_path):
    with small_disk(tmp_path / "disk", "400k") as disk:
        (project.path / "data").symlink_to(disk)
        goes_on_when_there_is_room(project, disk)


def goes_on_when_there_is_room(project, disk):
    project.change("params/one.py", "epochs=3", "epochs=30")
    filler = disk / "filler"
    filler.write_bytes(b"x" * 320_000)
    result = project.run("--no-report")
    assert result.returncode != 0
    said = " ".join((result.stdout + result.stderr).split())
    assert "Trainer exited with code 1" in said
    assert re.search(r"The disk of '\S+_train_run' is full: \d+ bytes are left", said), said
    assert "Last good checkpoint" in said
    filler.unlink()
    result = project.run("--no-report")
    assert result.returncode == 0, result.stdout
    [path] = project.runs()
    run = TrainingRun(path)
    assert [e["step"] for e in run.events() if e["event"] == "step"] == list(range(1, 151))


@pytest.mark.timeout(900)  # six experiments
def test_a_torn_artifact_is_never_taken_for_cached(project):
    assert project.run().returncode == 0
    [path] = project.runs()
    model, manifest = path / "model.ckpt", path / "manifest.json"
    whole = {file: file.read_bytes() for file in (model, manifest)}
    for file in whole:
        for torn in (whole[file][:-3], b""):
            file.unlink()
            file.write_bytes(torn)
            run = TrainingRun(path)
            assert not run.is_complete
            if file == model:
                with pytest.raises(UnreadableFile, match="torn or altered"):
                    run.model()
            attempts = len(project.attempts(path))
            result = project.run("--no-report")
            assert result.returncode == 0, result.stdout
            assert len(project.attempts(path)) == attempts + 1  # from its last checkpoint
            assert TrainingRun(path).is_complete
    (reported,) = path.parent.glob("*_reportables_file_list.json")
    reported.write_bytes(b"")  # curifactory writes in place: after a power failure or a full disk
    result = project.run()
    assert result.returncode == 0, result.stdout
    assert len(project.attempts(path)) == attempts + 1
    assert "data:image/png;base64," in (project.path / "reports/_latest/index.html").read_text()


def test_sigterm_to_a_parallel_experiment_ends_its_children_and_their_trainers(slow_project):
    slow_project.change("params/one.py", "return [", "sets = [")
    with (slow_project.path / "params/one.py").open("a") as file:
        file.write(
            "    import copy, dataclasses\n    other = copy.deepcopy(sets[0])\n"
            "    other.name = 'two'\n"
            "    other.trainer = dataclasses.replace(other.trainer, seed=5)\n"
            "    return [*sets, other]\n"
        )
    experiment = slow_project.start("--parallel", "2")
    slow_project.wait_for_step(5)
    experiment.send_signal(signal.SIGTERM)
    experiment.communicate(timeout=120)
    assert experiment.returncode == -signal.SIGTERM
    for path in slow_project.runs():
        slow_project.wait_until_gone(path)
    deadline = time.monotonic() + 120
    while left := processes_in(slow_project.path):  # multiprocessing's own end after the others
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def processes_in(folder):
    return [p for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == str(folder)]


def test_a_second_ctrl_c_does_not_wait(slow_project):
    slow_project.change(
        "toy/model.py", "time.sleep(self.slowness() *", "time.sleep(600 * (batch_idx > 2) *"
    )
    experiment = slow_project.start()
    path = slow_project.wait_for_step(3)
    experiment.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        experiment.communicate(timeout=2)
    experiment.send_signal(signal.SIGINT)
    output, _ = experiment.communicate(timeout=120)
    assert experiment.returncode == 130, output
    assert "Killed at step 3" in output  # it was given no time to save that step
    assert [a["outcome"] for a in slow_project.attempts(path)] == ["failed"]
    assert survivors(path) == []
