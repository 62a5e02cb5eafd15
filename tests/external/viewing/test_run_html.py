"""What a run and its checkpoints look like in a notebook, whatever is torn in them."""

import json
import os
import platform
from pathlib import Path

import pytest

from curitorch.external.attempt import end_attempt, read_attempts, start_attempt
from curitorch.external.journal import Journal
from curitorch.external.manifest import write_manifest
from curitorch.external.run_state import run_state
from curitorch.external.rundir import TrainingRun
from curitorch.external.stores.local import LocalStore


def trained(path: Path, *, outcome: str | None = "complete", metrics: dict | None = None) -> Path:
    """Write a run as a trainer does."""
    attempt = start_attempt(path, ["train", "--name=<b>"], world_size=2, nodes=1)
    with Journal(path / "journal.jsonl") as journal:
        journal.attempt(0, resume_step=0)
        journal.write("metric", step=7, epoch=1, metrics=metrics or {"val/loss": 0.123456})
    if outcome is not None:
        end_attempt(path, attempt, exit_code=int(outcome != "complete"), outcome=outcome)
    if outcome == "complete":
        (path / "model.ckpt").write_bytes(b"model")
        write_manifest(path, [path / "model.ckpt"], step=7, epoch=1, attempts=1)
    return path


def hold(run: Path, *, pid: int, host: str = "") -> None:
    record = {"pid": pid, "host": host or platform.node(), "since": "now"}
    (run / "lock-holder.json").write_text(json.dumps(record))


def last_sign(run: Path) -> float:
    return (run / "journal.jsonl").stat().st_mtime


def age(run: Path, seconds: float) -> None:
    """Let the last sign of a run be that long ago."""
    path = run / "attempts" / "0.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "started": record["started"] - seconds}))
    then = last_sign(run) - seconds
    os.utime(run / "journal.jsonl", (then, then))


def test_a_complete_run_is_a_table_of_what_came_of_it(tmp_path):
    shown = TrainingRun(trained(tmp_path / "run"))._repr_html_()
    for part in (">complete<", "7 steps", "0: complete", "<td>val/loss</td><td>0.1235</td>"):
        assert part in shown


def test_everything_that_is_shown_is_escaped(tmp_path):
    metrics = {"<script>alert(1)</script>": 1.0, "word": "<i>"}
    shown = TrainingRun(trained(tmp_path / "<run>", metrics=metrics))._repr_html_()
    for tag in ("<script>", "<i>", "<run>", "--name=<b>"):
        assert tag not in shown
    assert "&lt;script&gt;" in shown


def test_a_run_that_is_not_there_says_so_with_the_place_that_was_looked_at(tmp_path):
    run = TrainingRun(tmp_path / "none")
    assert run.state.word == "not begun"
    assert f"There is no run &#x27;{tmp_path / 'none'}&#x27;" in run._repr_html_()


def test_a_stopped_and_a_failed_run_say_what_to_do(tmp_path):
    stopped = TrainingRun(trained(tmp_path / "stopped", outcome="stopped"))
    failed = TrainingRun(trained(tmp_path / "failed", outcome="failed"))
    assert stopped.state.word == "stopped"
    assert (failed.state.word, "ended with code 1" in failed.state.sentence) == ("failed", True)
    assert all("the same command goes on" in each.state.sentence for each in (stopped, failed))


def test_torn_files_become_sentences(tmp_path):
    model, manifest, lost = (trained(tmp_path / name) for name in ("model", "manifest", "lost"))
    (model / "model.ckpt").write_bytes(b"mod")
    (manifest / "manifest.json").write_text('{"schema": 1,')
    (lost / "manifest.json").unlink()
    for run, words in (
        (model, "has 3 bytes, recorded are 5"),
        (manifest, "is not whole JSON"),
        (lost, "its manifest.json is missing"),
    ):
        assert TrainingRun(run).state.word == "torn"
        assert words in TrainingRun(run)._repr_html_()


def test_a_journal_of_a_newer_curitorch_is_said_and_does_not_raise(tmp_path):
    run = trained(tmp_path / "run")
    (run / "journal.jsonl").write_text('{"event": "attempt", "schema": 99, "attempt": 0}\n')
    assert "has schema 99" in TrainingRun(run)._repr_html_()


def test_a_run_that_is_trained_here_is_running_though_an_attempt_failed(tmp_path):
    run = trained(tmp_path / "run", outcome="failed")
    hold(run, pid=os.getpid())
    assert TrainingRun(run).state.word == "running"


@pytest.mark.parametrize(
    ("pid", "host", "silent", "word"),
    [
        (2**22 + 1, "", 60, "interrupted"),  # beyond the numbers that Linux gives
        (2**22 + 1, "", 0, "running"),
        (2**22 + 1, "another", 10_000, "running"),  # nobody can tell from here
        (None, "", 60, "running"),  # this process
    ],
)
def test_an_attempt_without_an_end_is_judged_by_who_holds_the_run(
    tmp_path, pid, host, silent, word
):
    run = trained(tmp_path / "run", outcome=None)
    hold(run, pid=pid or os.getpid(), host=host)
    assert run_state(run, now=last_sign(run) + silent).word == word


def test_a_run_that_ends_while_it_is_looked_at_is_not_taken_for_torn(tmp_path, monkeypatch):
    """Its manifest is looked for before it is written, and its attempts are read afterwards."""
    run = trained(tmp_path / "run", outcome="complete")
    (run / "manifest.json").rename(run / "to be written")

    def read(path):
        (run / "to be written").rename(run / "manifest.json")
        monkeypatch.undo()
        return read_attempts(path)

    monkeypatch.setattr("curitorch.external.run_state.read_attempts", read)
    assert run_state(run).word == "complete"


def test_a_last_sign_that_is_yet_to_come_does_not_let_a_dead_run_live(tmp_path):
    run = trained(tmp_path / "run", outcome=None)
    age(run, -86400)  # the clock was set back since
    state = run_state(run)
    assert state.word == "interrupted"
    assert "at a time yet to come by this clock" in state.sentence
    hold(run, pid=os.getpid())
    os.utime(run / "lock-holder.json")
    assert run_state(run).word == "running"


def test_a_process_that_got_the_number_of_a_dead_one_holds_nothing(tmp_path):
    run = trained(tmp_path / "run", outcome=None)
    hold(run, pid=os.getpid())
    os.utime(run / "lock-holder.json", (1, 1))  # before this process began
    age(run, 60)
    assert TrainingRun(run).state.word == "interrupted"


def test_a_slurm_job_goes_on_without_whoever_submitted_it(tmp_path):
    run = trained(tmp_path / "run", outcome=None)
    (run / "slurm").mkdir()
    (run / "slurm/job.json").write_text('{"schema": 1, "name": "a", "job_id": "1", "index": null}')
    age(run, 600)
    assert TrainingRun(run).state.word == "running"


def test_checkpoints_are_a_list_that_is_shown_as_a_table(tmp_path):
    run = TrainingRun(tmp_path)
    assert run.checkpoints() == []
    assert run.checkpoints()._repr_html_() == "<p>No checkpoint.</p>"
    file = tmp_path / "file"
    file.write_bytes(b"x" * 1_500_000)
    details = {"epoch": 2, "samples": 12800, "world_size": 2, "metrics": {"<loss>": 0.25}}
    with LocalStore(run.layout.checkpoints) as store:
        store.put(20, {"model.ckpt": file}, details=details)
    shown = run.checkpoints()._repr_html_()
    for cell in ("20", "12,800", "1.500", "0.25", "step-00000020/model.ckpt"):
        assert f"<td>{cell}</td>" in shown
    assert "<th>&lt;loss&gt;</th>" in shown


@pytest.mark.parametrize(
    ("status", "words"),
    [("success", ["complete"]), ("failed", ["failed"]), (None, ["running", "interrupted"])],
)
def test_what_a_logger_alone_wrote_has_begun(tmp_path, status, words):
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.attempt(0, resume_step=0, world_size=1)
        journal.write("metric", step=1, epoch=0, metrics={"loss": 1.0})
        if status is not None:
            journal.write("end", status=status)
            journal.write("metric", step=1, epoch=0, metrics={"test_loss": 1.0})
    now = last_sign(tmp_path)
    found = [run_state(tmp_path, now=now).word, run_state(tmp_path, now=now + 100).word]
    assert list(dict.fromkeys(found)) == words
    if status == "success":
        with Journal(tmp_path / "journal.jsonl") as journal:
            journal.attempt(1, resume_step=1, world_size=1)
        assert run_state(tmp_path, now=last_sign(tmp_path)).word == "running"


def test_what_was_not_launched_has_no_row_of_launches_and_the_time_of_its_journal(tmp_path):
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.attempt(0, resume_step=0, world_size=1)
        journal.write("metric", step=1, epoch=0, metrics={"loss": 1.0})
    lines = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    lines[-1]["time"] = lines[0]["time"] + 12
    (tmp_path / "journal.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    shown = TrainingRun(tmp_path)._repr_html_()
    assert "<td>attempts</td>" not in shown
    assert "<td>processes</td>" not in shown
    assert "<td></td>" not in shown
    assert "<td>time</td><td>12.0 s</td>" in shown
