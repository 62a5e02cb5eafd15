"""The environment variables that connect a trainer process to its launcher.

Read here, and in `sdk.environment`, which also knows PeriFlow's.

| variable | set by | meaning |
|---|---|---|
| `CURITORCH_RUN_DIR` | a stage | the run directory, absolute; the mark of all its processes |
| `CURITORCH_ATTEMPT` | a stage | the number of this attempt |
| `CURITORCH_NODE` | `node`, under Slurm | a rank that stopped as asked ends with status 0 |
| `CURITORCH_CHECKPOINT` | a stage, for scripts with the SDK | the checkpoint policy, JSON |
| `CKPT_DIR` | a stage, for scripts with the SDK | where the script saves, and finds what it saved |
| `PROCESSED_ITERS` | a stage, for scripts with the SDK | steps done by what lies in `CKPT_DIR` |
| `SLURMD_NODENAME`, `SLURM_PROCID` | Slurm | this machine's name there, and its place in a step |
| `RANK`, `LOCAL_RANK`, `WORLD_SIZE` | torchrun | this process's place among all |
"""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

RUN_DIR = "CURITORCH_RUN_DIR"
ATTEMPT = "CURITORCH_ATTEMPT"
NODE = "CURITORCH_NODE"
CHECKPOINT = "CURITORCH_CHECKPOINT"
CKPT_DIR = "CKPT_DIR"
PROCESSED_ITERS = "PROCESSED_ITERS"

RANK_LIKE = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "NODE_RANK"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "ROLE_NAME"),
    *("MASTER_ADDR", "MASTER_PORT"),
)
"""What a launcher must not hand down: it would make the trainers believe in another job."""

RANK_LIKE_PREFIX = "TORCHELASTIC_"


@dataclass(frozen=True)
class Launched:
    """The stage that launched this process: its run directory and the attempt's number."""

    run: Path
    attempt: int


@dataclass(frozen=True)
class Ranks:
    """This process's place: `rank` of `world_size` processes, `local_rank` of those here."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1

    @property
    def nodes(self) -> int:
        """How many machines take part, each with as many processes as this one."""
        return self.world_size // self.local_world_size


def launched(environ: Mapping[str, str] = os.environ) -> Launched | None:
    """Return what the launching stage announced, or None when nobody launched this process."""
    if RUN_DIR not in environ or ATTEMPT not in environ:
        return None
    return Launched(run=Path(environ[RUN_DIR]), attempt=int(environ[ATTEMPT]))


def ranks(environ: Mapping[str, str] = os.environ) -> Ranks:
    """Return this process's place as torchrun announced it; alone without torchrun."""
    return Ranks(
        rank=int(environ.get("RANK", 0)),
        local_rank=int(environ.get("LOCAL_RANK", 0)),
        world_size=int(environ.get("WORLD_SIZE", 1)),
        local_world_size=int(environ.get("LOCAL_WORLD_SIZE", 1)),
    )


def host(environ: Mapping[str, str] = os.environ) -> str:
    """Return this machine's name: Slurm's in a job, else its own."""
    return environ.get("SLURMD_NODENAME") or platform.node()


def for_trainers(
    environ: Mapping[str, str], *, run: Path, attempt: int, extra: Mapping[str, str]
) -> dict[str, str]:
    """Return the trainers' environment: `environ` without ranks, marked, and `extra`."""
    kept = {
        name: value
        for name, value in environ.items()
        if name not in RANK_LIKE and not name.startswith(RANK_LIKE_PREFIX)
    }
    return {**kept, **extra, RUN_DIR: str(run.resolve()), ATTEMPT: str(attempt)}
