"""Completing a run: the last checkpoint becomes the model, and a manifest says that it is all."""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from .atomic import copy_or_link
from .attempt import code_commit
from .checkpoint import described
from .journal import Journal, read_journal
from .layout import Layout
from .manifest import write_manifest
from .model_record import metadata_path, write_model_record
from .state_files import whole_state
from .stores.local import LocalStore
from .stores.sidecar import folder_name, sidecar_name
from .stores.store import Store


def keep_model(
    store: Store, step: int, targets: Iterable[Path], *, journal: Journal | None
) -> None:
    """Make the checkpoint of `step` the final model, with its record, at each of `targets`.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        UnreadableFile: It is torn or altered.
    """
    stored = next((each for each in store.list() if each.step == step), None)
    if stored is None:
        raise FileNotFoundError(f"The store has no checkpoint of step {step}, the last one.")
    with TemporaryDirectory(prefix="curitorch-model-") as folder:
        last = described(stored, whole_state(store, stored, Path(folder)))
        record = {**last.model, "commit": code_commit(Path.cwd())}
        for target in targets:
            copy_or_link(last.path, target)
            write_model_record(target, record)
    if journal is not None:
        journal.write("complete", step=last.step, epoch=last.epoch)
        journal.fsync()


def complete_run(run: Path) -> None:
    """Write the manifest of a run whose processes all ended well: from now on it is complete.

    Raises:
        FileNotFoundError: The trainer left no model.
    """
    layout = Layout(run)
    # By the journal: checkpoints may lie elsewhere, and a script of the user's may write neither.
    ends = [event for event in read_journal(layout.journal) if event["event"] == "complete"]
    step, epoch = (ends[-1]["step"], ends[-1]["epoch"] or 0) if ends else (0, 0)
    record = metadata_path(layout.model)
    files = [layout.model, *([record] if record.exists() else [])]
    if not layout.model.exists() and ends and ends[-1].get("sdk"):
        files = _newest_files(layout)  # the script's own files, whatever they are
    write_manifest(
        run,
        files,
        step=step,
        epoch=epoch,
        attempts=len(list(layout.attempts.glob("*.json"))),
    )


def _newest_files(layout: Layout) -> list[Path]:
    """Return the files of the newest checkpoint in the run, and its sidecar; perhaps none."""
    if not layout.checkpoints.is_dir():
        return []
    stored = LocalStore(layout.checkpoints).newest_valid()
    if stored is None:
        return []
    folder = layout.checkpoints / folder_name(stored.step)
    sidecar = layout.checkpoints / sidecar_name(stored.step)
    return [*(folder / name for name in stored.files), sidecar]
