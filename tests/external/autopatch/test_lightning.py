"""A Lightning Trainer in a script: the same prints, weights and logged values in all ways."""

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("script", "at"),
    [
        ("with_lightning.py", [5, 11, 19]),
        ("with_lightning.py --workers 2", [5, 14]),
        ("with_lightning.py --accumulate 2", [6, 13]),
    ],
)
def test_a_trainer_goes_on_exactly(runner, script, at):
    said = runner.carries(script, at=at, by_status=143)
    assert "Not exact" not in said
