"""Stages of the user's own."""

from pathlib import Path

import curifactory as cf
from params.mine import Mine

from curitorch.cachers import DatasetCacher
from curitorch.stages import external_training


@cf.stage([], ["points"], [DatasetCacher(extension=".txt")])
def make_points(record):
    assert isinstance(record.params, Mine)
    path = Path(record.stage_cachers[0].get_path())
    path.write_text("".join(f"{i / record.params.points}\n" for i in range(record.params.points)))
    return path


train = external_training(inputs={"points": "dataset_path"})
