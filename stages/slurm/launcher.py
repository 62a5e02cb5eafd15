"""Training a run by a Slurm job."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...external.rundir import TrainingRun
from ...external.sdk.environment import announce
from ...external.slurm_job import SCRIPT
from ...params import CheckpointParams, LaunchParams, SlurmParams
from ...params.curifactory_api import Record
from ..announcement import announce as announce_command
from ..interruption import Interruption
from ..python_path import python_path
from ..report import report_training
from ..saves import Saves
from .job import find_job
from .script import render_job, write_script
from .supervision import CANCEL_SECONDS, complete_by_slurm


@dataclass(frozen=True)
class SlurmLauncher:
    """Trains by the script `job.sbatch` in the run directory.

    Args:
        run: The run.
        program: From `program_words`, with its options.
        policy: Where a script with the SDK saves.
        launch: How many processes on how many nodes.
        slurm: What the job asks for.
        sdk: Whether it is such a script.
    """

    run: TrainingRun
    program: Sequence[str]
    policy: CheckpointParams
    launch: LaunchParams
    slurm: SlurmParams
    sdk: bool = False

    @property
    def command(self) -> list[str]:
        """The words that submit it by hand."""
        return ["sbatch", str(self.run.path.resolve() / SCRIPT)]

    def end_old(self) -> None:
        """Cancel the job that trains here, and wait until it is gone."""
        job = find_job(self.run.path)
        if job is None:
            return
        logging.warning("%s is cancelled: its run is overwritten.", job.describe().capitalize())
        job.cancel()
        deadline = time.monotonic() + CANCEL_SECONDS
        while find_job(self.run.path) is not None and time.monotonic() < deadline:
            time.sleep(0.5)

    def write(self) -> Path:
        """Write the job's script and return its path.

        Raises:
            ValueError: The settings do not fit each other, or a path cannot stand in it.
        """
        own: dict[str, str] = {}
        saves = None
        if self.sdk:
            saves = Saves(self.run, self.policy, self.launch).folder
            own = announce(folder=saves, processed=0, policy=self.policy)
        text = render_job(
            self.run.path,
            self.program,
            self.launch,
            self.slurm,
            environment={"PYTHONPATH": python_path(), **own, **self.launch.environment},
            folder=Path.cwd(),
            saves=saves,
        )
        return write_script(self.run.path, text)

    def is_trained(self) -> bool:
        """Complete a script's run that was killed after its last step; returns whether."""
        if not self.sdk or find_job(self.run.path) is not None:
            return False
        return Saves(self.run, self.policy, self.launch).complete_if_trained()

    def complete(self, record: Record, interruption: Interruption) -> None:
        """See the run through: by the job that is there, or one submitted now.

        Raises:
            TrainerFailed: It failed more often than `launch.max_restarts` allows.
            TrainerStopped: Somebody else asked the job to stop, or cancelled it.
            JobNotSubmitted: `slurm.submit` is False and no job trains here.
            SlurmUnreachable: Slurm did not answer, or refused the script.
        """
        if self.is_trained():
            report_training(record, self.run)
            return
        self.write()
        announce_command("Launching", self.command)
        complete_by_slurm(record, self.run, self.launch, self.slurm, interruption)
