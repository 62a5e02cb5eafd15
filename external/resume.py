"""Where a training goes on: at its own newest checkpoint, at the beginning, or at another's end."""

import pickle
from pathlib import Path

from .checkpoint import Checkpoint, newest_valid
from .refused import Refused


def resume_point(directory: Path, resume: str) -> Checkpoint | None:
    """Return the checkpoint to go on from, or None for the beginning.

    Args:
        directory: The run's own checkpoints.
        resume: "auto", "none", or the path of a checkpoint that a new run begins at.

    Raises:
        Refused: `resume` is no such thing, or would leave newer checkpoints of the run behind.
    """
    own = newest_valid(directory)
    if resume == "auto":
        return own
    if resume == "none":
        if own is not None:
            raise Refused(
                f"--resume none, but '{directory}' holds checkpoints up to step {own.step}. "
                "Use --resume auto to go on, or an empty run directory."
            )
        return None
    path = Path(resume)
    if not path.is_file():
        raise Refused(
            f"--resume {resume!r} is no file. Write auto, none, or the path of a checkpoint."
        )
    if own is None:
        return _foreign_checkpoint(path)
    if own.path.resolve() != path.resolve() and path.resolve().parent == directory.resolve():
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
    return Checkpoint(
        path=path, step=step, epoch=epoch, samples=None, world_size=0, bytes=0, checksum=""
    )
