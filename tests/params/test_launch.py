import pytest

from curitorch.params import LaunchParams

IMPOSSIBLE = [
    ({"processes_per_node": 0}, "processes_per_node is 0, expected a whole number of at least 1."),
    ({"nodes": 0}, "nodes is 0"),
    ({"accelerator": "cuda"}, "accelerator is 'cuda', expected one of 'auto', 'cpu', 'gpu'."),
    ({"accelerator": ["cpu"]}, "accelerator is ['cpu']"),
    ({"strategy": None}, "strategy is None"),
    ({"launcher": "cloud"}, "launcher is 'cloud', expected one of 'local', 'slurm'."),
    ({"max_restarts": -1}, "max_restarts is -1"),
    ({"grace_seconds": -0.1}, "grace_seconds is -0.1, expected a number of seconds of at least 0."),
    ({"lock_wait_seconds": -1}, "lock_wait_seconds is -1"),
    ({"environment": ["A=1"]}, "environment is ['A=1'], expected a dictionary"),
    ({"environment": {"A=": "1"}}, "environment has the name 'A='"),
    ({"environment": {"": "1"}}, "environment has the name ''"),
    ({"environment": {"A": 1}}, "environment['A'] is 1, expected a string without NUL. Write"),
    ({"environment": {"A": "\0"}}, "environment['A'] is '\\x00'"),
]


@pytest.mark.parametrize(("settings", "sentence"), IMPOSSIBLE)
def test_impossible_launches_are_refused_with_a_sentence(settings, sentence):
    with pytest.raises(ValueError) as refusal:
        LaunchParams(**settings)
    assert sentence in str(refusal.value)


def test_the_environment_is_copied():
    environment = {"A": "1"}
    launch = LaunchParams(environment=environment)
    environment["A"] = "2"
    assert launch.environment == {"A": "1"}


def test_patience_may_be_zero_or_without_limit():
    LaunchParams(grace_seconds=0, lock_wait_seconds=0)
    assert LaunchParams().lock_wait_seconds is None
