"""Where things lie in a run directory: the one home of its file names.

<run>/
  manifest.json                  commit marker, see `manifest`
  model.ckpt                     the final model, an ordinary Lightning checkpoint
  model_metadata.json            the typed-model record, see `model_record`
  checkpoints/step-00000120/model.ckpt          a local store, see `checkpoint`
  checkpoints/step-00000120.json                its sidecar, see `stores.sidecar`
  journal.jsonl                  see `journal`
  logs/attempt-0/rank-0.log      each rank's whole output; launcher.log is torchrun's own
  logs/attempt-0/ended           how torchrun ended on the first node of a Slurm job
  logs/attempt-0/rank-0.json     how that rank ended, see `rank_report`
  attempts/0.json                see `attempt`
  job.sbatch                     the script of its Slurm job, see `stages.slurm.script`
  slurm/job.json                 which job that is, see `job_record`; job-4711.log: the script's own
  lock                           held while somebody trains here, see `run_lock`
"""

from dataclasses import dataclass
from pathlib import Path

from . import journal, manifest


@dataclass(frozen=True)
class Layout:
    """The paths in the run directory `run`; nothing is created."""

    run: Path

    @property
    def manifest(self) -> Path:
        """The commit marker."""
        return self.run / manifest.FILE_NAME

    @property
    def model(self) -> Path:
        """The final model."""
        return self.run / "model.ckpt"

    @property
    def checkpoints(self) -> Path:
        """The directory of the checkpoints."""
        return self.run / "checkpoints"

    @property
    def journal(self) -> Path:
        """The journal of all attempts."""
        return self.run / journal.FILE_NAME

    @property
    def attempts(self) -> Path:
        """The directory of the attempts' records."""
        return self.run / "attempts"

    @property
    def sbatch(self) -> Path:
        """The script of the run's Slurm job."""
        return self.run / "job.sbatch"

    @property
    def lock(self) -> Path:
        """The file that is locked while somebody trains here."""
        return self.run / "lock"

    def logs(self, attempt: int) -> Path:
        """The directory of the logs of attempt `attempt`."""
        return self.run / "logs" / f"attempt-{attempt}"

    def rank_log(self, attempt: int, rank: int) -> Path:
        """The whole output of one rank."""
        return self.logs(attempt) / f"rank-{rank}.log"

    def launcher_log(self, attempt: int) -> Path:
        """The output of torchrun itself."""
        return self.logs(attempt) / "launcher.log"
