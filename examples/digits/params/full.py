"""A wider network, trained longer, from three seeds; on GPUs where there are any."""

from params.base import Params

from curitorch.params import CheckpointParams, LaunchParams, TrainerParams


def get_params():
    """Return the three parameter sets of `-p full`."""
    return [
        Params(
            name=f"full_seed{seed}",
            trainer=TrainerParams(
                model="digits.model:DigitsClassifier",
                model_args={"channels": 64, "dropout": 0.3, "learning_rate": 1e-3},
                data="digits.data:DigitsData",
                epochs=60,
                batch_size=64,
                seed=seed,
            ),
            checkpoint=CheckpointParams(every_n_epochs=5, every_n_seconds=60, keep=5),
            launch=LaunchParams(processes_per_node=2, max_restarts=2),
        )
        for seed in (1, 2, 3)
    ]
