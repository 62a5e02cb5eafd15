"""Completing a run: the last checkpoint becomes the model, and a manifest says that it is all."""

from collections.abc import Iterable
from pathlib import Path

from .atomic import copy_or_link
from .attempt import code_commit
from .checkpoint import read_checkpoint
from .journal import Journal, read_journal
from .layout import Layout
from .manifest import write_manifest
from .model_record import metadata_path, write_model_record


def keep_model(last: Path, targets: Iterable[Path], *, journal: Journal | None) -> None:
    """Make the checkpoint file `last` the final model, with its record, at each of `targets`.

    Raises:
        FileNotFoundError: There is no such checkpoint.
    """
    described = read_checkpoint(last)
    record = {**described.model, "commit": code_commit(Path.cwd())}
    for target in targets:
        copy_or_link(last, target)
        write_model_record(target, record)
    if journal is not None:
        journal.write("complete", step=described.step, epoch=described.epoch)
        journal.fsync()


def complete_run(run: Path) -> None:
    """Write the manifest of a run whose processes all ended well: from now on it is complete.

    Raises:
        FileNotFoundError: The trainer left no model.
    """
    layout = Layout(run)
    # By the journal: checkpoints may lie elsewhere, and a script of the user's may write neither.
    ends = [event for event in read_journal(layout.journal) if event["event"] == "complete"]
    step, epoch = (ends[-1]["step"], ends[-1]["epoch"]) if ends else (0, 0)
    record = metadata_path(layout.model)
    files = [layout.model, *([record] if record.exists() else [])]
    write_manifest(
        run,
        files,
        step=step,
        epoch=epoch,
        attempts=len(list(layout.attempts.glob("*.json"))),
    )
