"""Where a training goes on: at its own newest checkpoint, at the beginning, or at another's end."""

import pickle
from pathlib import Path

from .checkpoint import Checkpoint, described
from .refused import Refused
from .state_files import newest_state
from .stores.store import Store


def resume_point(store: Store, resume: str, *, folder: Path) -> Checkpoint | None:
    """Return the checkpoint to go on from, or None for the beginning.

    Args:
        store: The run's own checkpoints.
        resume: "auto", "none", or the path of a checkpoint that a new run begins at.
        folder: Where the file goes if the store is elsewhere.

    Raises:
        Refused: `resume` is no such thing, or would leave newer checkpoints of the run behind.
    """
    found = newest_state(store, folder)
    own = None if found is None else described(*found)
    if resume == "auto":
        return own
    if resume == "none":
        if own is not None:
            raise Refused(
                f"--resume none, but the run has checkpoints up to step {own.step}, such as "
                f"'{own.path}'. Use --resume auto to go on, or an empty run directory."
            )
        return None
    path = Path(resume)
    if not path.is_file():
        raise Refused(
            f"--resume {resume!r} is no file. Write auto, none, or the path of a checkpoint."
        )
    if own is None:
        return _foreign_checkpoint(path)
    own_folder = own.path.resolve() if own.path.is_dir() else own.path.resolve().parent
    root = own_folder.parent
    if own.path.resolve() != path.resolve() and path.resolve().parent.parent == root:
        raise Refused(
            f"--resume {resume!r} is not the newest checkpoint, '{own.path}' is. "
            "To go back, resume from it in a new run directory."
        )
    return own  # the run began from `path` and has come further since


def _foreign_checkpoint(path: Path) -> Checkpoint:
    """Describe a checkpoint that another run, or plain Lightning, wrote."""
    import torch

    try:
        content = torch.load(path, map_location="meta", weights_only=True)
        step, epoch = int(content["global_step"]), int(content["epoch"])
    except pickle.UnpicklingError:
        step, epoch = 0, 0  # needs trust: Lightning opens it, and says so
    except (RuntimeError, KeyError, TypeError, EOFError) as error:
        raise Refused(
            f"--resume '{path}' is not a Lightning checkpoint ({error!r}). "
            "Write auto, none, or the path of a checkpoint."
        ) from error
    return Checkpoint(path=path, step=step, epoch=epoch)
