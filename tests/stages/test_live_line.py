import io
import logging
import os
import pty
import subprocess
import sys

import nbformat
import pytest
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars

from curitorch.external.progress import Progress
from curitorch.stages.live_line import BarLine, PlainLines, QuietLine, TerminalLine, live_line
from tests.notebooks import execute

EVENTS = [
    {"event": "attempt", "time": 0.0, "attempt": 0, "resume_step": 0},
    {"event": "plan", "time": 1.0, "steps": 100, "epochs": 4, "batches_per_epoch": 25},
    *(
        {"event": "step", "time": 10.0 + step / 2, "step": step, "epoch": 1}
        for step in range(30, 41)
    ),
    {"event": "metric", "time": 31.0, "step": 40, "epoch": 1, "metrics": {"val/loss": 0.123456}},
    {"event": "checkpoint", "time": 31.0, "step": 40, "epoch": 1, "bytes": 10},
]


def progress(events=EVENTS):
    state = Progress()
    for event in events:
        state.update(event)
    return state


def test_the_line_has_epoch_step_metrics_rate_checkpoint_age_and_time_left():
    assert progress().describe(now=43.0) == (
        "epoch 2/4 · step 40/100 · val/loss 0.1235 · 2 steps/s · checkpoint 12 s ago · 30 s left"
    )
    assert Progress().describe(now=0.0) == "starting the trainer processes"


def test_the_line_has_the_median_and_p99_of_step_times_words_and_what_is_lost():
    steps = [
        {"event": "step", "time": 41.0, "step": 41 + n, "epoch": None, "seconds": seconds}
        for n, seconds in enumerate([0.02] * 97 + [1.5] * 3)
    ]
    said = {"phase": "warm up", "nan": float("nan"), "long": "x" * 50, "val/loss": 1}
    metric = {"event": "metric", "time": 41.0, "step": 41, "epoch": None, "metrics": said}
    state = progress([*EVENTS, *steps, metric, {"event": "gap", "time": 42.0, "lost": 7}])
    assert (state.step_seconds(0.5), state.step_seconds(0.99)) == (0.02, 1.5)
    line = state.describe(now=43.0)
    assert " · 20 ms/step, p99 1.5 s · " in line
    assert f"long {'x' * 19}… · nan nan · phase warm up · val/loss 1 · " in line
    assert line.endswith(" · 7 journal lines lost")


def test_a_resumed_attempt_starts_at_its_step_and_measures_its_own_rate():
    state = progress(
        [*EVENTS, {"event": "attempt", "time": 900.0, "attempt": 1, "resume_step": 25}]
    )
    assert (state.step, state.rate, state.attempt) == (25, None, 1)


@pytest.mark.parametrize(
    ("event", "name", "value"),
    [
        ({"event": "stop", "time": 1.0, "step": 4, "reason": "SIGTERM"}, "stop_reason", "SIGTERM"),
        ({"event": "something of a newer trainer", "time": 1.0}, "step", 40),
    ],
)
def test_other_events_are_understood_or_let_be(event, name, value):
    assert getattr(progress([*EVENTS, event]), name) == value


def test_plain_lines_come_once_per_epoch_and_at_the_end(caplog):
    with caplog.at_level(logging.INFO), PlainLines("digits") as line:
        for _ in range(5):
            line.show(progress())
        for step in (51, 52):
            event = {"event": "step", "time": 40.0, "step": step, "epoch": 2}
            line.show(progress([*EVENTS, event]))
    assert [record.message.split(" · ")[:2] for record in caplog.records] == [
        ["digits: epoch 2/4", "step 40/100"],
        ["digits: epoch 3/4", "step 51/100"],
        ["digits: epoch 3/4", "step 52/100"],  # the end
    ]


def test_where_the_experiment_runs_decides_which_line(monkeypatch, caplog):
    with caplog.at_level(logging.INFO):
        monkeypatch.setattr("rich.get_console", lambda: Console(file=io.StringIO()))
        assert type(live_line("x", None)) is PlainLines
        monkeypatch.setattr("rich.get_console", lambda: Console(force_terminal=True))
        assert type(live_line("x", None)) is TerminalLine
        assert type(live_line("x", object())) is BarLine
    with caplog.at_level(logging.ERROR):
        assert type(live_line("x", None)) is QuietLine


def test_among_curifactorys_bars_it_is_one_more_and_gone_at_the_end():
    columns = (
        TextColumn("{task.completed}/{task.total}"),
        BarColumn(),
        TextColumn("{task.fields[name]}"),
    )
    bars = Bars(*columns, console=Console(file=io.StringIO()))
    with BarLine("digits", bars) as line:
        line.show(progress())
        [task] = bars.tasks
        assert (task.completed, task.total) == (40, 100)
        assert "step 40/100" in task.fields["name"]
    assert bars.tasks == []


def test_on_a_terminal_one_line_is_redrawn_and_a_log_goes_above_it():
    program = (
        "import logging, sys\nfrom rich.logging import RichHandler\nimport rich\n"
        "logging.basicConfig(level='INFO', handlers=[RichHandler(console=rich.get_console())])\n"
        "from curitorch.stages.live_line import live_line\n"
        "from curitorch.external.progress import Progress\n"
        "p = Progress()\n"
        "with live_line('digits', None) as line:\n"
        "    for step in range(1, 4):\n"
        "        p.update({'event': 'step', 'time': float(step), 'step': step, 'epoch': 0})\n"
        "        line.show(p); sys.stdin.readline()\n"
        "    logging.info('a log line')\n"
        "print('after')\n"
    )
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=slave,
        stderr=slave,
        env=environment,
        bufsize=0,
    )
    os.close(slave)
    output, step = b"", 1
    while True:
        try:
            chunk = os.read(master, 4096)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        output += chunk
        if b"digits: step %d" % step in output:  # it was drawn: to the next one
            process.stdin.write(b"\n")
            step += 1
    os.close(master)
    process.stdin.close()
    assert process.wait() == 0
    assert step == 4
    text = output.decode()
    assert "\x1b[2K" in text  # erased and drawn again, not a line each
    assert "a log line" in text
    assert text.rstrip().endswith("after")


def test_a_command_on_a_terminal_can_be_pasted(caplog):
    from rich.logging import RichHandler

    from curitorch.stages.announcement import announce

    output = io.StringIO()
    handler = RichHandler(console=Console(file=output, width=60))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        with caplog.at_level(logging.INFO):
            announce("Launching", ["python", "-m", "x", "--note=[bold]a b", "y" * 100])
    finally:
        root.removeHandler(handler)
    assert f"python -m x '--note=[bold]a b' {'y' * 100}\n" in output.getvalue()
    assert caplog.messages == [f"Launching: python -m x '--note=[bold]a b' {'y' * 100}"]


def test_in_a_notebook_one_output_is_updated(tmp_path):
    code = (
        "import logging, time\n"
        "logging.getLogger().setLevel(logging.INFO)\n"
        "from curitorch.stages.live_line import live_line\n"
        "from curitorch.external.progress import Progress\n"
        "p = Progress()\n"
        "with live_line('digits', None) as line:\n"
        "    for step in range(1, 6):\n"
        "        p.update({'event': 'step', 'time': float(step), 'step': step, 'epoch': 0})\n"
        "        line.show(p)\n"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    execute(notebook, cwd=tmp_path)
    [output] = notebook.cells[0].outputs
    assert output.data["text/plain"] == "digits: step 5 · 1 steps/s"
