"""What every parameter set of the digits has in common."""

from dataclasses import dataclass

from curitorch.params import TrainingParams


@dataclass
class Params(TrainingParams):
    """The settings of a training, and how the images are divided."""

    split_seed: int = 0
