"""Two processes."""

from curitorch.params import LaunchParams, TrainingParams


def get_params():
    """Return the one parameter set."""
    return [TrainingParams(name="two", launch=LaunchParams(processes_per_node=2))]
