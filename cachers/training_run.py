"""Caching a training run: the run directory is the artifact, its manifest says that it is whole."""

import logging
import os
from collections.abc import Collection
from pathlib import Path

from ..external.attempt import not_told
from ..external.manifest import Manifest, read_manifest
from ..external.rundir import TrainingRun
from ..external.schema import UnreadableFile
from .tree import copy_whole
from .whole import WholeCacher


class TrainingRunCacher(WholeCacher):
    """Caches a `TrainingRun`; `get_path()` is its run directory, for the trainer to write to.

    A run that was interrupted or is still going on is not cached, so that its stage runs again
    and continues it. In a notebook: `TrainingRunCacher("data/cache/…_run").load()`.
    """

    reports_again = True
    options: tuple[str, ...] = ()
    """Words that the run's trainer would be told now, such as `--width=16`, beside the hash."""

    def check(self) -> bool:
        """Return whether the run is cached; one that was told other options is, with a warning."""
        if not super().check():
            return False
        if self.record is not None and not self.record.manager.map_mode:
            warn_of_other_options(self.path, self.options)
        return True

    def verify(self) -> None:
        """Check the metadata, the manifest and the sizes of the files that the manifest names.

        Raises:
            FileNotFoundError: The run is not complete.
            UnreadableFile: Something of it is torn.
        """
        super().verify()
        read_complete(self.path)

    def load(self) -> TrainingRun:
        """Return the handle of the run; no file of it but the manifest is read.

        Raises:
            UnreadableFile: The directory is not a complete run.
        """
        read_complete(self.path)
        self.load_metadata()
        return TrainingRun(self.path)

    def save(self, obj: TrainingRun | str | os.PathLike[str]) -> str:
        """Keep a complete run: one that lies at `get_path()` as it is, another one as a copy.

        Copied models and checkpoints share their disk space with the original where hard links
        work.

        Raises:
            UnreadableFile: The run is not complete, or torn.
            TypeError: `obj` is neither a run nor a path.
        """
        if isinstance(obj, TrainingRun):
            run = obj.path
        elif isinstance(obj, str | os.PathLike):
            run = Path(obj)
        else:
            raise TypeError(
                f"TrainingRunCacher got {obj!r:.80}, expected a TrainingRun or the path of a run "
                "directory. Return one of them from the stage."
            )
        manifest = read_complete(run)
        if run.resolve() != self.path.resolve():
            copy_whole(
                run,
                self.path,
                leave_out=["lock", "lock-holder.json"],
                link=lambda file: file.suffix == ".ckpt",
                verify=read_complete,
            )
        self.extra_metadata.update(
            step=manifest.step,
            epoch=manifest.epoch,
            attempts=manifest.attempts,
            completed=manifest.completed,
        )
        self.save_metadata()
        return str(self.path)


def warn_of_other_options(run: Path, options: Collection[str]) -> None:
    """Say so if a run was trained with other options of a stage, which are in no hash."""
    new = not_told(run, options)
    if new:
        logging.getLogger().warning(
            "'%s' was trained without %s. A stage's options are not in the hash: put what makes it "
            "another training into the parameter set, or train it again with --overwrite-stage.",
            run,
            ", ".join(new),
        )


def read_complete(run: Path) -> Manifest:
    """Return the manifest of a complete run.

    Raises:
        UnreadableFile: It is not complete, or a file that its manifest names is torn.
    """
    try:
        return read_manifest(run)
    except (FileNotFoundError, NotADirectoryError) as error:
        found = "a run that is not complete" if run.is_dir() else "not a directory"
        raise UnreadableFile(
            f"'{run}' (seen from '{Path.cwd()}') is {found}: it has no manifest.json. Run its "
            "experiment again to complete it, or pass the directory of a complete run."
        ) from error
