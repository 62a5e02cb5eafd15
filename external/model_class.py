"""From the recorded name of a model's class to the class itself."""

import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule


class ModelClassNotFound(LookupError):
    """The class that a model was recorded as cannot be used; the message says what to pass."""


def find_class(
    record: Mapping[str, Any], *, near: Path, aliases: Mapping[str, str] | None = None
) -> "type[LightningModule]":
    """Import the class that a typed-model record names.

    The module is imported by its name. If there is none, the folders above the artifact are
    searched for it, nearest first, and the one that has it is appended to `sys.path` and stays
    there: so a notebook in any working directory reloads the model of the project around it.
    Only folders above the artifact count, since importing runs code, and none that anybody may
    write to, such as /tmp.

    Args:
        record: With `module` and `qualname`, which may be dotted for a nested class.
        near: The model's file.
        aliases: New places of classes that were renamed or moved:
            `{"old.module:Old": "new.module:New"}`.

    Raises:
        ModelClassNotFound: The class is missing, not importable, or not a LightningModule.
    """
    recorded = f"{record.get('module')}:{record.get('qualname')}"
    target = (aliases or {}).get(recorded, recorded)
    module_name, _, qualname = target.partition(":")
    advice = (
        "Pass the class as model_class=…, or say where it is now: "
        f'aliases={{"{recorded}": "new.module:New"}}.'
    )
    if module_name == "__main__" or "<locals>" in qualname:
        place = "in a script or notebook" if module_name == "__main__" else "inside a function"
        raise ModelClassNotFound(
            f"The model's class {target!r} was defined {place}, where nothing else can import it. "
            "Pass the class as model_class=…, or move it into a module."
        )
    if not qualname or not all(part.isidentifier() for part in module_name.split(".")):
        raise ModelClassNotFound(
            f"{target!r} does not name a model's class, expected 'package.module:Class'. {advice}"
        )
    module = _import(module_name, near=near, target=target, advice=advice)
    found: object = module
    for name in qualname.split("."):
        if not hasattr(found, name):
            raise ModelClassNotFound(
                f"The model's class {target!r} is not in '{_file(module)}': no {name!r} there. "
                f"{advice}"
            )
        found = getattr(found, name)
    return check_class(found, name=target)


def check_class(found: object, *, name: str) -> "type[LightningModule]":
    """Return `found` if it is a LightningModule class; `name` is what messages call it.

    Raises:
        ModelClassNotFound: It is not one, or it is one of `pytorch_lightning`.
    """
    from lightning.pytorch import LightningModule

    if isinstance(found, type) and issubclass(found, LightningModule):
        return found
    # A class of the other package can only exist if that package was imported.
    other = getattr(sys.modules.get("pytorch_lightning"), "LightningModule", None)
    if isinstance(found, type) and other is not None and issubclass(found, other):
        raise ModelClassNotFound(
            f"{name!r} is a LightningModule of 'pytorch_lightning', expected one of "
            "'lightning.pytorch': the two packages do not mix. Import it from lightning.pytorch."
        )
    raise ModelClassNotFound(
        f"{name!r} is {found!r}, expected a subclass of lightning.pytorch.LightningModule."
    )


def _import(name: str, *, near: Path, target: str, advice: str) -> ModuleType:
    try:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not _is_or_contains(error.name, name):
                raise  # the module is there, one that it imports is not
            folder = folder_above(near, name)
            if folder is None:
                raise ModelClassNotFound(
                    f"The model's class {target!r} cannot be imported: {error}, nor is it in a "
                    f"folder above '{near}' that not everybody may write to. {advice}"
                ) from error
            if str(folder) not in sys.path:
                sys.path.append(str(folder))
            importlib.invalidate_caches()
            return importlib.import_module(name)
    except ModelClassNotFound:
        raise
    except (Exception, SystemExit) as error:  # a module may raise anything, or be a script
        raise ModelClassNotFound(
            f"The module of the model's class {target!r} cannot be imported: {error!r}. {advice}"
        ) from error


def _is_or_contains(missing: str | None, name: str) -> bool:
    return missing is not None and f"{name}.".startswith(f"{missing}.")


def folder_above(near: Path, name: str) -> Path | None:
    """Return the nearest folder above `near` from which the module `name` can be imported."""
    parts = name.split(".")
    lexical = Path(os.path.normpath(near.absolute()))  # a linked data folder is in the project too
    for folder in dict.fromkeys([*lexical.parents, *near.resolve().parents]):
        package = folder.joinpath(*parts)
        is_there = package.with_name(f"{parts[-1]}.py").is_file() or (
            (package / "__init__.py").is_file()
        )
        if is_there and not folder.stat().st_mode & 0o002:
            return folder
    return None


def _file(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or module.__name__
