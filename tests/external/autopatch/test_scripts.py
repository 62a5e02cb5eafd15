"""Unmodified scripts: uninterrupted, patched and interrupted, they print bitwise the same."""

import pytest

SLOW = pytest.mark.slow
pytestmark = pytest.mark.timeout(900)  # many processes, one after the other
SHAPES = {  # lines of output at which the process gets SIGTERM
    "plain.py --workers 2": [4, 9],
    "plain.py --workers 2 --persistent": [4, 9, 14],
    "plain.py --compile": [4, 9],
    "by_steps.py": [3, 9],
    "functions.py": [4, 9, 17],
    "trainer_class.py": [2, 9],
    "gan.py": [3, 12],
    "many_loops.py": [3, 9, 24, 29, 33],  # 33: two loaders, neither past its first batch
    "iterable.py": [3, 8],
    "folds.py": [4, 12, 19],
    "own_checkpoints.py": [4, 10],
    "infinite.py": [3, 8, 15],
    "language_model.py": [3, 10],
    "small_gpt.py": [2, 9],
    "hidden_state.py": [4, 11],
    "hidden_functions.py": [4, 11],
    "curriculum.py": [5, 10],
    "users_generators.py": [3, 13, 21],
}


@SLOW
def test_an_epoch_loop_with_everything_random_goes_on_exactly(runner):
    said = runner.carries("plain.py", at=[4, 9, 12])
    assert "Not exact" not in said


@SLOW
@pytest.mark.parametrize("script", SHAPES)
def test_scripts_of_all_shapes_go_on_exactly(runner, script):
    runner.carries(script, at=SHAPES[script])
