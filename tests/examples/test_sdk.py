"""The three examples of the SDK, by themselves and under their stages."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from curitorch.cachers import TrainingRun
from curitorch.external.journal import read_journal

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "sdk"
SLOW = pytest.mark.slow
NAMES = [
    ("image_classification", "train/loss", 200),
    pytest.param("text_classification", "eval_acc", 60, marks=SLOW),
    pytest.param("autoencoder", "train/loss", 150, marks=SLOW),
]


@pytest.fixture
def folder(tmp_path):
    ignored = shutil.ignore_patterns("data", "logs", "reports", "__pycache__")
    return Path(shutil.copytree(EXAMPLES, tmp_path / "the examples", ignore=ignored))


def start(folder, *words, **options):
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def run(folder, *words):
    process = start(folder, *words)
    output, _ = process.communicate(timeout=280)
    return process.returncode, output


@pytest.mark.parametrize(("name", "metric", "steps"), NAMES)
def test_by_itself_it_trains_and_writes_a_local_log(folder, name, metric, steps):
    code, output = run(folder, f"{name}.py")
    assert code == 0, output
    [log] = folder.glob("periflow_trainer_*.log")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert any(metric in line for line in lines)
    assert output.count("runs locally") == 1
    accuracy = re.search(r"accuracy (\d\.\d+)", output)
    assert accuracy is None or float(accuracy[1]) > 0.9
    assert sorted(folder.glob("saves/*"))


@pytest.mark.parametrize(("name", "metric", "steps"), NAMES)
def test_under_its_stage_two_processes_leave_a_complete_run(folder, name, metric, steps):
    code, output = run(folder, "-m", "curitorch.stages.run", name, "-p", "two", "--plain")
    assert code == 0, output
    [path] = folder.glob("data/cache/*_run")
    done = TrainingRun(path)
    assert done.is_complete
    assert done.manifest.step == steps
    assert done.metrics()[metric].notna().any()
    assert [e["step"] for e in done.events() if e["event"] == "step"] == list(range(1, steps + 1))
    assert done.checkpoints()[-1].step == steps
    assert re.search(rf"step {steps}/{steps} · .*/step, p99", output)


@SLOW
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("name", "longer", "save"),
    [
        ("image_classification", {"steps": 20_000}, "checkpoint.pt"),
        ("text_classification", {"steps": 3000, "save_steps": 3000}, "checkpoint-"),
        ("autoencoder", {"epochs": 1000}, "emergency-step="),
    ],
)
def test_sigterm_saves_and_the_next_run_goes_on_with_the_next_step(folder, name, longer, save):
    stage = folder / "experiments" / f"{name}.py"
    stage.write_text(stage.read_text().replace("sdk=True", f"sdk=True, options={longer!r}"))
    words = ("-m", "curitorch.stages.run", name, "-p", "two", "--plain")
    for attempt in range(2):
        process = start(folder, *words)
        journal = wait_for_steps(folder, process, attempt)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=250)
        assert process.returncode != 0
        events = read_journal(journal)
        stop = events[-1]
        assert (stop["event"], stop["reason"]) == ("stop", "SIGTERM"), output
        done = TrainingRun(journal.parent)
        newest = done.checkpoints()[-1]
        assert newest.step == stop["step"]
        assert any(p.name.startswith(save) for p in (journal.parent / "saves").iterdir())
    steps = [e["step"] for e in done.events() if e["event"] == "step"]
    assert steps == list(range(1, stop["step"] + 1))
    assert [a.outcome for a in done.attempts()] == ["stopped", "stopped"]


def wait_for_steps(folder, process, attempt, number=30):
    """Wait until an attempt has made some steps; returns the journal."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        for journal in folder.glob("data/cache/*_run/journal.jsonl"):
            made, of = 0, None
            for event in read_journal(journal):
                of = event["attempt"] if event["event"] == "attempt" else of
                made += event["event"] == "step" and of == attempt
            if made >= number:
                return journal
        time.sleep(0.05)
    raise AssertionError("no steps were made")
