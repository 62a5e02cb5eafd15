"""When curifactory was told to overwrite a run: what goes, and what this experiment just made."""

import shutil
from datetime import datetime

from ..external.manifest import read_manifest
from ..external.rundir import TrainingRun
from ..external.schema import NewerSchema
from ..params.curifactory_api import Record


def is_to_be_overwritten(record: Record, run: TrainingRun) -> bool:
    """Return whether curifactory was told to overwrite what is older than this experiment.

    What this experiment itself trained stays: `--parallel` runs a stage in a child process and
    then in the parent, and records with the same parameters share a run.
    """
    manager = record.manager
    records = [record, *record.input_records] if record.is_aggregate else [record]
    told = (
        manager.overwrite
        or manager.current_stage_name in manager.overwrite_stages
        or any(r.params is not None and r.params.overwrite for r in records)
    )
    if not told or not run.path.exists():
        return False
    try:
        if not run.is_complete:
            return True
    except NewerSchema:  # older than this experiment, which could not have written it
        return True
    completed = datetime.fromisoformat(read_manifest(run.path).completed)
    return completed.timestamp() < int(manager.run_timestamp.timestamp())


def empty(run: TrainingRun) -> None:
    """Delete what is in the run directory, but the lock that we hold; the manifest first."""
    run.layout.manifest.unlink(missing_ok=True)
    for entry in run.path.iterdir():
        if entry.name.startswith("lock"):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
