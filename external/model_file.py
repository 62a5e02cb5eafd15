"""Opening a saved model with as little trust as it needs: a checkpoint file is a pickle."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

from .schema import UnreadableFile


class UntrustedModel(ValueError):
    """The file holds more than tensors and plain values; the message says what it would run."""


def open_model_file(path: Path, *, trusted: bool) -> tuple[dict[str, Any], bool]:
    """Read a Lightning checkpoint without its tensors' bytes, which are mapped until needed.

    Args:
        path: An ordinary Lightning checkpoint.
        trusted: Whether code in the file may run if it cannot be opened without.

    Returns:
        The checkpoint, on CPU, and whether `weights_only=True` was enough for it.

    Raises:
        UntrustedModel: It needs more trust and `trusted` is False; no code of it has run.
        UnreadableFile: It is torn, or not a Lightning checkpoint.
    """
    import torch

    if not zipfile.is_zipfile(path):  # torch.save writes a zip file, whose directory is at the end
        raise UnreadableFile(
            f"'{path}' is not a whole file of torch.save: it was torn, or is something else. "
            "Save the model again, or pass the path of a Lightning checkpoint."
        )
    weights_only = True
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        weights_only = False
        needs = _needs(path)
        if needs and not trusted:
            raise UntrustedModel(
                f"'{path}' holds {', '.join(needs)}, which only a pickle that may run code can "
                "bring back. If you trust its origin, pass trusted=True; to avoid it, keep only "
                "numbers, texts, lists and dicts in the hyperparameters."
            ) from error
        if not needs:
            raise _unreadable(path, error) from error
        try:
            content = torch.load(path, map_location="cpu", mmap=True, weights_only=False)
        except Exception as cause:  # unpickling what the file names may raise anything
            raise UnreadableFile(
                f"'{path}' holds {', '.join(needs)}, which cannot be brought back: {cause!r}. "
                "Open it where the code that saved it can be imported."
            ) from cause
    except Exception as error:  # a pickle that was altered may raise anything
        raise _unreadable(path, error) from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        found = f"the keys {sorted(map(str, content))[:5]}" if isinstance(content, dict) else ""
        raise UnreadableFile(
            f"'{path}' is not a Lightning checkpoint: it holds "
            f"{found or 'a ' + type(content).__name__}, expected a dict with 'state_dict'. "
            "Save with Trainer.save_checkpoint or LightningModelCacher."
        )
    return content, weights_only


def _needs(path: Path) -> list[str]:
    """Return the names that the pickle would import beyond what is known to be harmless."""
    from torch.serialization import get_unsafe_globals_in_checkpoint

    try:
        return sorted(get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # torn inside: then the pickle is unreadable, not untrusted
        return []


def _unreadable(path: Path, error: BaseException) -> UnreadableFile:
    reason = str(error).strip().split("\n")[0]
    return UnreadableFile(
        f"'{path}' cannot be read as a checkpoint: {type(error).__name__}: {reason}. "
        "It was torn or altered: save the model again."
    )
