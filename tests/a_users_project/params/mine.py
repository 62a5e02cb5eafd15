"""Parameters that other modules import by the bare name of their package."""

from dataclasses import dataclass

from curitorch.params import LaunchParams, TrainerParams, TrainingParams


@dataclass
class Mine(TrainingParams):
    points: int = 24


def get_params():
    trainer = TrainerParams(
        model="stages.model:Line",
        data="stages.model:loaders",
        epochs=2,
        batch_size=8,
        trainer_args={"enable_model_summary": False},
    )
    return [Mine(name="mine", trainer=trainer, launch=LaunchParams(accelerator="cpu"))]
