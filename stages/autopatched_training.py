"""A curifactory stage that trains by an unmodified script, saved and continued by the autopatch."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..cachers import TrainingRunCacher
from ..external.stores.settings import write_settings
from ..params import CheckpointParams, LaunchParams
from ..params.curifactory_api import Record
from .external_training import Options, external_training
from .training import run_training


def autopatched_training(
    script: str,
    *,
    inputs: Mapping[str, str] | None = None,
    output: str = "run",
    options: Options | None = None,
    name: str = "train",
    cacher: TrainingRunCacher | None = None,
    frameworks: str = "torch",
    checkpoint: CheckpointParams | None = None,
    launch: LaunchParams | None = None,
) -> Callable[..., Record]:
    """Return a stage that runs a script of anybody's under torchrun, and can be interrupted.

        train = autopatched_training("train.py", inputs={"dataset": "data"}, options={"lr": 0.1})

    The script's whole state is saved in the run directory, by the policy's `every_n_seconds`, or
    else `every_n_steps`, and when it is asked to stop; the same experiment goes on from there.

    Args:
        script: `script.py` or `package.module`.
        inputs: Names in the state to names of the script's options; each is passed as a path.
        output: The name of the run in the state.
        options: Further options of the script, or a function of the record that returns them.
        name: The stage's name, which is part of the cache's file names.
        cacher: Where the run directory lies; in curifactory's cache without it.
        frameworks: What is patched: `LATTICE_AUTOPATCH`.
        checkpoint: The policy; the record's without it.
        launch: How many processes; the record's without it.
    """

    def train(record: Record, trainer: str, **settings: Any) -> Any:
        policy = checkpoint or getattr(record.params, "checkpoint", None) or CheckpointParams()
        place = launch or getattr(record.params, "launch", None) or LaunchParams()
        path = _run_directory(record)
        environment = {**variables(path, policy, frameworks), **place.environment}
        return run_training(
            record, trainer, sdk=True, launch=replace(place, environment=environment), **settings
        )

    return external_training(
        script,
        inputs=inputs,
        output=output,
        options=options,
        name=name,
        cacher=cacher,
        train=train,
    )


def variables(run: Path, policy: CheckpointParams, frameworks: str) -> dict[str, str]:
    """Return the `LATTICE_*` variables that save a script in the run directory `run`."""
    settings = {"root": str(run.resolve() / "checkpoints")}
    if policy.every_n_seconds is not None:
        settings |= {
            "periodic_saving": "enabled",
            "periodic_saving_interval": str(policy.every_n_seconds),
        }
    elif policy.every_n_steps is not None:
        settings |= {
            "periodic_saving": "enabled",
            "periodic_saving_interval": f"{policy.every_n_steps}steps",
        }
    return {
        "LATTICE_AUTOPATCH": frameworks,
        "LATTICE_CHECKPOINT_TYPE": "local",
        "LATTICE_CHECKPOINT_CONFIG": write_settings(settings),
    }


def _run_directory(record: Record) -> Path:
    [cacher] = [c for c in record.stage_cachers or [] if isinstance(c, TrainingRunCacher)]
    return Path(str(cacher.get_path()))
