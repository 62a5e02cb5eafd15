import pytest

from curitorch.params import CheckpointParams

IMPOSSIBLE = [
    ({"every_n_steps": 0}, "every_n_steps is 0, expected a whole number of at least 1, or None."),
    ({"every_n_epochs": -2}, "every_n_epochs is -2"),
    (
        {"every_n_seconds": 0},
        "every_n_seconds is 0, expected a number of seconds above 0, or None.",
    ),
    ({"every_n_seconds": float("inf")}, "every_n_seconds is inf"),
    ({"every_n_seconds": "60"}, "every_n_seconds is '60'"),
    ({"keep": -1}, "keep is -1, expected a whole number of at least 0."),
    ({"keep": None}, "keep is None"),
    ({"at_exit": "false"}, "at_exit is 'false', expected True or False."),
]


@pytest.mark.parametrize(("settings", "sentence"), IMPOSSIBLE)
def test_impossible_policies_are_refused_with_a_sentence(settings, sentence):
    with pytest.raises(ValueError) as refusal:
        CheckpointParams(**settings)
    assert sentence in str(refusal.value)


def test_a_run_saves_each_epoch_and_at_exit_unless_told_otherwise():
    policy = CheckpointParams()
    assert (policy.every_n_epochs, policy.keep, policy.at_exit) == (1, 3, True)


def test_several_occasions_may_be_given_or_none():
    CheckpointParams(every_n_steps=10, every_n_seconds=0.5, every_n_epochs=2)
    CheckpointParams(every_n_epochs=None, at_exit=False)
