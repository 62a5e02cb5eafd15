"""A small network in two processes: seconds on two cores."""

from params.base import Params

from curitorch.params import CheckpointParams, LaunchParams, TrainerParams


def get_params():
    """Return the one parameter set of `-p quick`."""
    return [
        Params(
            name="quick",
            trainer=TrainerParams(
                model="digits.model:DigitsClassifier",
                model_args={"channels": 16, "learning_rate": 3e-3},
                data="digits.data:DigitsData",
                epochs=15,
                batch_size=64,  # of both processes together
            ),
            checkpoint=CheckpointParams(every_n_epochs=1, keep=3),
            launch=LaunchParams(processes_per_node=2, accelerator="cpu"),
        )
    ]
