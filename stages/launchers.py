"""What trains a run: the processes of this machine, or a job; chosen by `launch.launcher`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..external.job_record import read_job
from ..external.run_lock import RunLocked
from ..external.rundir import TrainingRun
from ..params import CheckpointParams, LaunchParams
from ..params.curifactory_api import Record
from .command import torchrun_command
from .interruption import Interruption
from .saves import Saves
from .slurm.job import find_job
from .slurm.queue import SlurmUnreachable
from .supervision import complete


class Launcher(Protocol):
    """Trains one run by a program; the caller of `complete` and `end_old` holds the run's lock."""

    @property
    def run(self) -> TrainingRun:
        """The run."""

    @property
    def command(self) -> list[str]:
        """The words that start it, to be pasted."""

    def end_old(self) -> None:
        """End what still trains here: the run directory is about to be emptied."""

    def complete(self, record: Record, interruption: Interruption) -> None:
        """See the run through, until it is complete or interrupted."""


@dataclass(frozen=True)
class LocalLauncher:
    """Trains by torchrun on this machine.

    Args:
        run: The run.
        program: From `program_words`, with its options.
        policy: Where a script with the SDK saves.
        launch: How many processes.
        sdk: Whether it is such a script.
    """

    run: TrainingRun
    program: Sequence[str]
    policy: CheckpointParams
    launch: LaunchParams
    sdk: bool = False

    @property
    def command(self) -> list[str]:
        """The words of torchrun."""
        return torchrun_command(self.program, self.launch)

    def end_old(self) -> None:
        """Nothing: `complete` ends what a killed experiment left."""

    def complete(self, record: Record, interruption: Interruption) -> None:
        """See the run through.

        Raises:
            RunLocked: A Slurm job trains here.
            TrainerFailed: The program failed more often than `launch.max_restarts` allows.
            TrainerStopped: Somebody else asked the trainer processes to stop.
        """
        _refuse_beside_a_job(self.run)
        saves = Saves(self.run, self.policy, self.launch) if self.sdk else None
        complete(record, self.run, self.command, self.launch, interruption, saves)


def _refuse_beside_a_job(run: TrainingRun) -> None:
    if read_job(run.path) is None:
        return
    try:
        job = find_job(run.path)
    except SlurmUnreachable:  # moved away from its cluster
        return
    if job is not None:
        raise RunLocked(
            f"'{run.path}' is being trained by {job.describe()}. Follow it with launcher='slurm', "
            f"or end it: scancel {job.id}"
        )
