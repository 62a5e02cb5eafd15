"""Random moments: TERM and KILL mixed, over the scripts; the last line has every bit of the end.

KILL_POINTS=200 pytest tests/external/autopatch/test_kill_points.py  # as many as you have time for
"""

import os
import random
import signal

import pytest

pytestmark = pytest.mark.timeout(3000)

SCRIPTS = ["plain.py", "by_steps.py", "functions.py", "gan.py", "infinite.py", "small_gpt.py"]
EVERY = ",periodic_saving=enabled,periodic_saving_interval=1steps"
POINTS = int(os.environ.get("KILL_POINTS", "12"))


@pytest.mark.parametrize(
    "number",
    [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, max(1, POINTS // 2)))],
)
def test_two_random_interruptions_change_nothing(runner, number):
    chance = random.Random(number)
    script = SCRIPTS[number % len(SCRIPTS)]
    plain = runner.run(script, patched=False)
    for _ in range(2):
        by = chance.choice([signal.SIGTERM, signal.SIGKILL])
        after = chance.randrange(1, max(2, len(plain.lines) // 2))
        done = runner.interrupt(script, after=after, by=by, config=EVERY)
        assert done.status in (-by, 0), done.err
    rest = runner.run(script, config=EVERY)
    assert rest.status == 0, rest.err
    last = rest.lines or done.lines
    assert last[-1] == plain.lines[-1]
