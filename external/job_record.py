"""The Slurm job of a run: `slurm/job.json`, by which a later experiment finds it again.

    {"schema": 1, "name": "digits_4f1c_run-0a1b2c3d4e", "job_id": "4711", "index": null}

`index` is its place in a job array, whose members share `name` and `job_id`. It is written before
the job is submitted, with `job_id` null, so that no moment is left at which the job is lost.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from .atomic import write_json
from .schema import UnreadableFile, read_record

SCHEMA = 1


@dataclass(frozen=True)
class JobRecord:
    """What a run knows of its job."""

    name: str
    job_id: str | None = None
    index: int | None = None

    @property
    def selector(self) -> str:
        """The job as Slurm's commands call it; empty before it was submitted."""
        if self.job_id is None:
            return ""
        return self.job_id if self.index is None else f"{self.job_id}_{self.index}"


def write_job(run: Path, job: JobRecord) -> None:
    """Record the job of a run."""
    write_json(_path(run), {"schema": SCHEMA, **asdict(job)})


def read_job(run: Path) -> JobRecord | None:
    """Return the job of a run; None if it has none, or its record is torn."""
    try:
        record = read_record(_path(run), newest=SCHEMA)
        record.pop("schema")
        return JobRecord(**record)
    except (FileNotFoundError, UnreadableFile, TypeError):
        return None


def _path(run: Path) -> Path:
    return run / "slurm" / "job.json"
