"""Random moments: TERM and KILL mixed, over the scripts; what is printed then is how it would end.

KILL_POINTS=200 pytest tests/external/autopatch/test_kill_points.py  # as many as you have time for
KILL_POINTS=200 KILL_SEED=7 pytest -n 2 tests/external/autopatch/test_kill_points.py  # others
"""

import os
import random
import signal

import pytest

pytestmark = pytest.mark.timeout(3000)

SCRIPTS = [
    *("plain.py", "by_steps.py", "functions.py", "gan.py", "infinite.py", "small_gpt.py"),
    *("trainer_class.py", "many_loops.py", "folds.py", "iterable.py", "hidden_state.py"),
    *("language_model.py", "own_checkpoints.py", "plain.py --workers 2", "ranks.py"),
    *("plain.py --workers 2 --persistent", "curriculum.py", "users_generators.py"),
]
POINTS = int(os.environ.get("KILL_POINTS", "12"))
SEED = int(os.environ.get("KILL_SEED", "0"))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, make_runner):
    """Return what a script prints as it is; each is run once."""
    known = {}

    def run(script):
        if script not in known:
            folder = tmp_path_factory.mktemp("plain")
            done = make_runner(folder).run(
                script, command=command_of(make_runner(folder), script), patched=False, OUT=folder
            )
            assert done.status == 0, done.err
            known[script] = done.lines
        return known[script]

    return run


def command_of(runner, script):
    is_of_ranks = script == "ranks.py"
    return runner.under_torchrun(script, 2) if is_of_ranks else runner.command(script)


@pytest.mark.parametrize(
    "number",
    [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, max(1, POINTS // 2)))],
)
def test_two_random_interruptions_change_nothing(runner, uninterrupted, number):
    chance = random.Random(f"{SEED} {number}")
    script = SCRIPTS[number % len(SCRIPTS)]
    whole = uninterrupted(script)
    options = {"command": command_of(runner, script), "OUT": str(runner.folder)}
    options["config"] = runner.saves_every_step
    printed = []
    for _ in range(2):
        by = chance.choice([signal.SIGTERM, signal.SIGKILL])
        after = chance.randrange(1, max(2, len(whole) // 2))
        later = chance.choice([0, chance.uniform(0, 0.03)])  # anywhere in a step
        done = runner.interrupt(script, after=after, by=by, later=later, **options)
        assert done.status in (1 if script == "ranks.py" else -by, 0), done.err
        assert "Not exact" not in done.err
        printed = done.lines or printed
    rest = runner.run(script, **options)
    assert rest.status == 0, rest.err
    last = rest.lines or printed  # it may have ended before it was interrupted
    assert last == whole[-len(last) :], rest.err
