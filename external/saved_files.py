"""What Lightning saved, as events of the journal: `ModelCheckpoint`'s files and direct saves.

    {"event": "checkpoint", "time": …, "step": 150, "epoch": 5, "bytes": 90210,
     "file": "journal/checkpoints/epoch=4-step=150.ckpt", "seconds": 0.04}
    {"event": "kept", "time": …, "step": 150, "monitor": "val/loss", "mode": "min",
     "best": "journal/checkpoints/epoch=4-step=150.ckpt", "last": "",
     "scores": {"journal/checkpoints/epoch=4-step=150.ckpt": 0.21}}

Paths are relative to the run directory, so that both may be moved together. `bytes` is null while
somebody else is still writing the file; `scores` are those that are new. The checkpoints of a
store have no `file`.
"""

import os
from pathlib import Path
from typing import Any


def saved(path: str | os.PathLike[str], run: Path) -> dict[str, Any]:
    """Return the details of a `checkpoint` event, apart from step, epoch and seconds."""
    return {"bytes": _size(path), "file": relative(path, run)}


def kept(callback: Any, run: Path, known: dict[str, Any]) -> dict[str, Any]:
    """Return the details of a `kept` event: what a `ModelCheckpoint` keeps, and how good it is.

    Args:
        callback: The `ModelCheckpoint`.
        run: The run directory.
        known: The scores of earlier events, which are not repeated; those of this one are added.
    """
    scores = {path: s for path, s in callback.best_k_models.items() if known.get(path) is not s}
    known.update(scores)
    return {
        "monitor": callback.monitor,
        "mode": callback.mode,
        "best": relative(callback.best_model_path, run),
        "last": relative(callback.last_model_path, run),
        "scores": {relative(path, run): float(score) for path, score in scores.items()},
    }


def relative(path: str | os.PathLike[str], run: Path) -> str:
    """Return `path` as seen from the run directory; URLs and nothing stay what they are."""
    text = os.fspath(path)
    if not text or "://" in text:
        return text
    return os.path.relpath(Path(text).absolute(), run.absolute())


def _size(path: str | os.PathLike[str]) -> int | None:
    """Return the bytes of a file or a folder of files (sharded); None if it is not here (yet)."""
    place = Path(path)
    if place.is_dir():
        return sum(each.stat().st_size for each in place.rglob("*") if each.is_file())
    return place.stat().st_size if place.is_file() else None
