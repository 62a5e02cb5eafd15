"""Where an SDK process stands: who launched it, which rank it is, where it goes on.

| variable | meaning |
|---|---|
| `CURITORCH_RUN_DIR`, `CURITORCH_ATTEMPT` | a stage launched us: managed, in its run directory |
| `CURITORCH_CHECKPOINT` | the stage's checkpoint policy as JSON: the store, and what it keeps |
| `PERIFLOW_ENABLED=1` | managed without a stage; the next four are then required, in this order |
| `WORLD_SIZE`, `NODE_RANK`, `NUM_NODES` | all processes, this machine among how many |
| `PROCESSED_ITERS` | steps done before this attempt: counting goes on from there |
| `CKPT_DIR` | where the script saves; without it `upload_checkpoint` needs a path |
| `RANK`, `LOCAL_RANK` | this process, as torchrun says |
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...params.checkpoint import CheckpointParams
from ..environment import CHECKPOINT, CKPT_DIR, PROCESSED_ITERS, Launched, Ranks, launched, ranks
from .errors import PeriFlowError, PeriFlowInternalError

PERIFLOW_ENABLED = "PERIFLOW_ENABLED"
REQUIRED = ("WORLD_SIZE", "NODE_RANK", "NUM_NODES", PROCESSED_ITERS)


@dataclass(frozen=True)
class Place:
    """Where this process stands.

    Attributes:
        run: The run directory; None in local mode.
        attempt: The number that a stage gave this attempt; None without one.
        ranks: This process among all.
        processed: Steps done before.
        checkpoints: The directory that the script saves in, if it was announced.
        policy: Which store uploads go to, and what it keeps.
    """

    run: Path | None = None
    attempt: int | None = None
    ranks: Ranks = field(default_factory=Ranks)
    processed: int = 0
    checkpoints: Path | None = None
    policy: CheckpointParams = field(default_factory=CheckpointParams)


def place(environ: Mapping[str, str] = os.environ) -> Place:
    """Return where this process stands.

    Raises:
        PeriFlowInternalError: PERIFLOW_ENABLED is 1 and a variable that it needs is missing.
        PeriFlowError: A variable does not hold what it should.
    """
    launch = launched(environ)
    if launch is not None:
        return _launched_by_a_stage(launch, environ)
    if environ.get(PERIFLOW_ENABLED) == "1":
        return _enabled(environ)
    return Place(ranks=_ranks(environ))


def announce(*, folder: Path, processed: int, policy: CheckpointParams) -> dict[str, str]:
    """Return the variables by which a stage tells `place` where a script saves and goes on."""
    return {
        CHECKPOINT: json.dumps(vars(policy)),
        CKPT_DIR: str(folder),
        PROCESSED_ITERS: str(processed),
    }


def _launched_by_a_stage(launch: Launched, environ: Mapping[str, str]) -> Place:
    policy = environ.get(CHECKPOINT)
    return Place(
        run=launch.run,
        attempt=launch.attempt,
        ranks=_ranks(environ),
        processed=_number(environ, PROCESSED_ITERS, default=0),
        checkpoints=_folder(environ),
        policy=CheckpointParams(**json.loads(policy)) if policy else CheckpointParams(),
    )


def _enabled(environ: Mapping[str, str]) -> Place:
    for name in REQUIRED:
        if name not in environ:
            raise PeriFlowInternalError(
                f"Environment variable '{name}' should be set in cloud mode! Set it, or unset "
                f"{PERIFLOW_ENABLED} to run locally."
            )
    world_size, nodes = _number(environ, "WORLD_SIZE"), _number(environ, "NUM_NODES")
    if world_size < 1 or nodes < 1 or world_size % nodes:
        raise PeriFlowError(
            f"{world_size} is not divisible by {nodes}: WORLD_SIZE counts the processes of all "
            "NUM_NODES machines, the same number on each."
        )
    rank, folder = _rank(environ), _folder(environ)
    local_world_size = world_size // nodes
    return Place(
        run=Path("periflow.run").absolute() if folder is None else folder.with_suffix(".run"),
        ranks=Ranks(
            rank=rank,
            local_rank=rank % local_world_size,
            world_size=world_size,
            local_world_size=local_world_size,
        ),
        processed=_number(environ, PROCESSED_ITERS),
        checkpoints=folder,
    )


def _ranks(environ: Mapping[str, str]) -> Ranks:
    """Return the ranks that a launcher announced, or else those of `torch.distributed`."""
    if "RANK" in environ:
        return ranks(environ)
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return Ranks()
    return Ranks(rank=distributed.get_rank(), world_size=distributed.get_world_size())


def _rank(environ: Mapping[str, str]) -> int:
    return _number(environ, "RANK") if "RANK" in environ else _ranks(environ).rank


def _folder(environ: Mapping[str, str]) -> Path | None:
    return Path(environ[CKPT_DIR]).absolute() if environ.get(CKPT_DIR) else None


def _number(environ: Mapping[str, str], name: str, *, default: int | None = None) -> int:
    value = environ.get(name, "" if default is None else str(default))
    if not value.isdecimal():
        raise PeriFlowError(f"{name} is {value!r}, expected a whole number of at least 0.")
    return int(value)
