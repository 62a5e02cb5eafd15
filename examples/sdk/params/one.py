"""One process."""

from curitorch.params import LaunchParams, TrainingParams


def get_params():
    """Return the one parameter set."""
    return [TrainingParams(name="one", launch=LaunchParams(processes_per_node=1))]
