"""Following a training that runs elsewhere: in scripts and notebooks, from its files alone."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel

from curitorch.external import run_state
from curitorch.external.attempt import end_attempt, start_attempt
from curitorch.external.journal import Journal
from curitorch.external.manifest import write_manifest
from curitorch.external.rundir import TrainingRun
from curitorch.external.viewing.following import Following

TRAINING = """
import sys, time
from pathlib import Path
from curitorch.external.attempt import end_attempt, start_attempt
from curitorch.external.journal import Journal
from curitorch.external.manifest import write_manifest
from curitorch.external.run_lock import RunLock

run = Path(sys.argv[1])
with RunLock(run):
    attempt = start_attempt(run, ["train"], world_size=1, nodes=1)
    with Journal(run / "journal.jsonl") as journal:
        journal.attempt(0, resume_step=0)
        step = 0
        while not (run.parent / "end").exists():
            step += 1
            journal.write("step", step=step, epoch=0)
            journal.write("metric", step=step, epoch=0, metrics={"loss": 1 / step})
            time.sleep(0.02)
    (run / "model.ckpt").write_bytes(b"model")
    end_attempt(run, attempt, exit_code=0, outcome="complete")
    write_manifest(run, [run / "model.ckpt"], step=step, epoch=0, attempts=1)
"""
"""A process that is a training as far as its files go: until it is told to end."""

PATIENCE = 200  # seconds, where something is waited for that comes in any case

LOOP = """
import sys
from curitorch.external.rundir import TrainingRun
for event in TrainingRun(sys.argv[1]).follow(every=0.02):
    print(event["event"], event.get("step"), flush=True)
"""


@pytest.fixture
def training(tmp_path):
    """Start a training in a process of its own; it ends when `end` is written beside its run."""
    started = []

    def start() -> tuple[TrainingRun, subprocess.Popen]:
        run = tmp_path / "run"
        started.append(subprocess.Popen([sys.executable, "-c", TRAINING, run]))
        return TrainingRun(run), started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def begin(run: Path, steps: int, *, number: int = 0, resume_step: int = 0):
    with Journal(run / "journal.jsonl") as journal:
        journal.attempt(number, resume_step=resume_step)
        for step in range(resume_step + 1, resume_step + steps + 1):
            journal.write("metric", step=step, epoch=0, metrics={"loss": 1 / step})
    return start_attempt(run, ["train"], world_size=1, nodes=1)


def steps_of(events) -> list[int]:
    return [event["step"] for event in events if event["event"] == "metric"]


def test_a_training_that_goes_on_is_followed_from_before_it_began_to_its_end(training, tmp_path):
    run = TrainingRun(tmp_path / "run")
    following = iter(run.follow(every=0.02, timeout=PATIENCE))
    training()
    steps = []
    for event in following:
        if event["event"] == "metric":
            steps.append(event["step"])
            if event["step"] == 3:
                assert run.state.word == "running"
                (tmp_path / "end").touch()
    assert steps == [*range(1, run.manifest.step + 1)]


def test_a_complete_run_gives_its_history_and_ends_at_once(tmp_path):
    attempt = begin(tmp_path, 3)
    (tmp_path / "model.ckpt").write_bytes(b"model")
    end_attempt(tmp_path, attempt, exit_code=0, outcome="complete")
    write_manifest(tmp_path, [tmp_path / "model.ckpt"], step=3, epoch=0, attempts=1)
    run = TrainingRun(tmp_path)
    assert steps_of(run.follow()) == [1, 2, 3]
    assert list(run.follow()) == list(run.follow())  # it can be gone through again


def test_what_does_not_exist_is_waited_for_until_the_time_is_over(tmp_path):
    began = time.monotonic()
    assert list(TrainingRun(tmp_path / "none").follow(every=0.02, timeout=0.1)) == []
    assert time.monotonic() - began >= 0.1


def test_a_failed_attempt_ends_it_unless_the_next_one_is_wanted(tmp_path):
    end_attempt(tmp_path, begin(tmp_path, 2), exit_code=1, outcome="failed")
    run = TrainingRun(tmp_path)
    assert steps_of(run.follow()) == [1, 2]
    assert steps_of(run.follow(through=True, every=0.02, timeout=0.1)) == [1, 2]
    following = iter(run.follow(through=True, every=0.02, timeout=PATIENCE))
    assert [next(following)["event"] for _ in range(3)] == ["attempt", "metric", "metric"]
    attempt = begin(tmp_path, 1, number=1, resume_step=1)
    (tmp_path / "model.ckpt").write_bytes(b"model")
    end_attempt(tmp_path, attempt, exit_code=0, outcome="complete")
    write_manifest(tmp_path, [tmp_path / "model.ckpt"], step=2, epoch=0, attempts=2)
    assert [(e["event"], e.get("resume_step")) for e in following] == [
        ("attempt", 1),
        ("metric", None),
    ]


def test_a_run_that_is_begun_anew_in_its_directory_is_followed_from_its_new_beginning(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(run_state, "SILENT_SECONDS", PATIENCE)  # nobody holds it
    begin(tmp_path, 3)
    following = iter(TrainingRun(tmp_path).follow(every=0.01, timeout=PATIENCE))
    assert len([next(following) for _ in range(4)]) == 4
    (tmp_path / "journal.jsonl").unlink()
    begin(tmp_path, 5)  # longer than the old one, so that its size alone says nothing
    assert [next(following).get("step") for _ in range(6)] == [None, 1, 2, 3, 4, 5]


def test_a_training_that_is_killed_is_not_followed_for_ever(training, monkeypatch):
    monkeypatch.setattr(run_state, "SILENT_SECONDS", 0.2)
    run, process = training()
    for event in run.follow(every=0.02, timeout=PATIENCE):
        if event["event"] == "metric" and event["step"] == 2:
            process.kill()
            process.wait()
    assert run.state.word == "interrupted"
    assert "ended without a word" in run.state.sentence


def test_ctrl_c_ends_a_script_that_follows_and_not_the_training(training, tmp_path):
    run, process = training()
    loop = subprocess.Popen(
        [sys.executable, "-c", LOOP, run.path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert loop.stdout.readline() == "attempt None\n"
    loop.send_signal(signal.SIGINT)
    _, errors = loop.communicate()
    assert loop.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in errors
    assert process.poll() is None
    (tmp_path / "end").touch()
    assert process.wait() == 0
    assert run.is_complete


def answer(client, message):
    """Return how the kernel answered a message; other answers, to its greetings, come before."""
    while True:
        reply = client.get_shell_msg(timeout=PATIENCE)
        if reply["parent_header"]["msg_id"] == message:
            return reply["content"]["status"]


def test_a_notebooks_stop_button_ends_the_cell_and_not_the_training(training, tmp_path):
    run, process = training()
    manager, client = start_new_kernel(startup_timeout=PATIENCE)
    try:
        follows = client.execute(
            "from curitorch.external.rundir import TrainingRun\n"
            f"TrainingRun({str(run.path)!r}).follow(every=0.05)"
        )
        shown, going_on = [], None
        while True:
            message = client.get_iopub_msg(timeout=PATIENCE)
            content = message["content"]
            if message["msg_type"] in ("display_data", "update_display_data"):
                shown.append(content["data"])
                # It may have been looked at before its first step.
                if going_on is None and len(shown) > 1 and "<img" in shown[-1]["text/html"]:
                    going_on = shown[-1]
                    manager.interrupt_kernel()
            if content.get("execution_state") == "idle" and shown:
                break
        assert "step" in going_on["text/plain"]
        assert '<img alt="curves" src="data:image/png;base64,' in going_on["text/html"]
        assert shown[-1]["text/plain"].endswith("No longer followed. The training was not touched.")
        assert answer(client, follows) == "ok"
        assert process.poll() is None
        (tmp_path / "end").touch()
        assert process.wait() == 0
        assert answer(client, client.execute("print('free')")) == "ok"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_looking_without_a_pause_is_refused(tmp_path):
    with pytest.raises(ValueError, match="every is 0, expected seconds above 0"):
        Following(tmp_path, every=0)
