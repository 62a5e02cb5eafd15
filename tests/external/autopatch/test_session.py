"""How a patched script ends, and what a new process finds."""

import json
import signal

import pytest

from curitorch.external.stores import LocalStore

SLOW = pytest.mark.slow
OFF = ",atexit_saving=disabled"  # or the last clean state is saved, whichever step that is of
FAILS = """
import torch
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(10):
    optimizer.zero_grad()
    model(torch.ones(4, 2)).sum().backward()
    optimizer.step()
    if step == 7:
        raise KeyError("user's")
"""


@SLOW
def test_a_finished_script_says_so_and_trains_nothing_unless_told(runner):
    first = runner.run("own_checkpoints.py")
    again = runner.run("own_checkpoints.py")
    told = runner.run("own_checkpoints.py", LATTICE_AGAIN="1")
    assert (again.status, again.out) == (0, "")
    assert "own_checkpoints.py is complete; there is nothing to train" in again.err
    assert (told.status, told.out) == (0, first.out)


def test_an_exception_keeps_its_traceback_and_status_and_what_was_saved(runner):
    script = runner.folder / "fails.py"
    script.write_text(FAILS)
    every = ",periodic_saving=enabled,periodic_saving_interval=3steps" + OFF
    done = runner.run(None, command=[*runner.command("plain.py")[:1], str(script)], config=every)
    assert done.status == 1
    assert done.err.splitlines()[-1] == 'KeyError: "user\'s"'
    steps = [each.details["steps"] for each in LocalStore(runner.store).list()]
    assert steps == [3, 6]


@SLOW
def test_a_kill_loses_at_most_the_last_interval(runner):
    every = ",periodic_saving=enabled,periodic_saving_interval=1steps"
    plain = runner.run("own_checkpoints.py", patched=False)
    killed = runner.interrupt("own_checkpoints.py", after=9, by=signal.SIGKILL, config=every)
    assert killed.status == -signal.SIGKILL
    # What was staged when it was killed is still made durable, by a process of its own.
    rest = runner.run("own_checkpoints.py", config=every)
    assert rest.status == 0, rest.err
    assert rest.lines[-1] == plain.lines[-1]
    assert 0 < len(rest.lines) < len(plain.lines)


@SLOW
def test_a_changed_script_a_torn_and_a_foreign_checkpoint_are_refused(runner):
    script = runner.folder / "train.py"
    script.write_text(FAILS)
    command = [*runner.command("plain.py")[:1], str(script)]
    every = ",periodic_saving=enabled,periodic_saving_interval=3steps" + OFF
    runner.run(None, command=command, config=every)
    script.write_text(FAILS.replace("== 7", "== 99"))
    changed = runner.run(None, command=command)
    assert changed.status == 2
    assert "'train.py' has changed since it was saved at step 6" in changed.err
    script.write_text(FAILS)
    path = runner.store / "step-00000006" / "script.ckpt"
    path.write_bytes(path.read_bytes()[:-100])
    torn = runner.run(None, command=command)
    assert torn.status == 1
    assert "Goes on at step 3" in torn.err
    for sidecar in runner.store.glob("step-*.json"):
        record = json.loads(sidecar.read_text())
        record["details"] = {"epoch": 3}
        sidecar.write_text(json.dumps(record))
    foreign = runner.run(None, command=command)
    assert foreign.status == 2
    assert "a checkpoint of something else" in foreign.err


INEXACT = """
import itertools, torch
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for batch in itertools.cycle([torch.ones(4, 2)]):
    optimizer.zero_grad()
    model(batch).sum().backward()
    optimizer.step()
    steps = optimizer.state.setdefault("steps", [])
    steps.append(1)
    if len(steps) == 9:
        break
"""


@SLOW
@pytest.mark.parametrize("strict", ["0", "1"])
def test_what_cannot_be_exact_is_said_with_file_and_line_or_is_an_error(runner, strict):
    script = runner.folder / "inexact.py"
    script.write_text(INEXACT)
    every = ",periodic_saving=enabled,periodic_saving_interval=2steps"
    command = [*runner.command("plain.py")[:1], str(script)]
    done = runner.run(None, command=command, config=every, LATTICE_STRICT=strict)
    assert done.status == int(strict)
    assert f"{script}:5: a loop over cycle" in done.err
    assert ("NotExact" in done.err) == (strict == "1")
