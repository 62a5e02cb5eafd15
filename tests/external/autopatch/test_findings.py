"""What cannot go on exactly is said with file and line in the first steps, or is an error."""

import pytest

INEXACT = """
import decimal, itertools, threading, time
import torch

def watch():
    while True:
        time.sleep(0.01)

model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
log = open("log.txt", "w")
with open("table.csv", "w") as table:
    table.write("step")
threading.Thread(target=watch, daemon=True).start()
batches = itertools.cycle([torch.ones(4, 2)])
context = decimal.Context()
for step in range(9):
    optimizer.zero_grad()
    model(next(batches)).sum().backward()
    optimizer.step()
    log.write(str(context.prec))
    with open("table.csv", "a") as table:
        table.write(str(step))
    if step % 2:
        context = decimal.Context(prec=step)
"""
SAID = {  # the line, and what is said of it
    11: "'log.txt' is open for writing, and a new process",
    12: "table.csv' is emptied here, as a new process does again",
    5: "a thread runs watch, and where it is cannot be saved",
    15: "an iterator of type cycle, which does not tell where it is",
    16: "'context' is a decimal:Context, which cannot be saved",
}


def run(runner, **options):
    script = runner.folder / "inexact.py"
    script.write_text(INEXACT)
    return script, runner.run(None, command=[*runner.command("x")[:1], str(script)], **options)


def test_all_that_cannot_be_exact_is_said_though_nothing_is_saved_yet(runner):
    script, done = run(runner)
    assert done.status == 0
    said = [line for line in done.err.splitlines() if "Not exact after an interruption" in line]
    for line, what in SAID.items():
        assert any(f"{script}:{line}: " in each and what in each for each in said), done.err


@pytest.mark.slow
def test_strict_makes_it_an_error_within_the_first_steps(runner):
    script, done = run(runner, LATTICE_STRICT="1")
    assert done.status == 1
    assert "NotExact" in done.err
    assert f"{script}:" in done.err.splitlines()[-1]
