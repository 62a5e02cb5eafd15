"""What of a curifactory project's own files is torn or missing: a sentence each."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CONFIG = Path("curifactory_config.json")


def torn_file() -> str | None:
    """Return a sentence on the first of curifactory's own files that is not JSON, if one is."""
    kept = "Nothing that was trained is in it."
    try:
        folder = _config().get("manager_cache_path", "data/")
    except ValueError as error:
        return f"'{CONFIG}' is not JSON ({error}). Mend it."
    for name, what in (
        ("store.json", f"Put a copy back or move it away: runs are counted anew. {kept}"),
        ("params_registry.json", f"Move it away: it is written anew. {kept}"),
    ):
        path = Path(folder, name)
        try:
            if path.exists():
                json.loads(path.read_bytes())
        except ValueError as error:
            return (
                f"'{path}', which curifactory keeps, is not whole JSON ({error}); a full disk may "
                f"have torn it. {what}"
            )
    return None


def missing_module(name: str | None, words: Iterable[str]) -> str | None:
    """Return a sentence if an experiment or parameters that were asked for are not there.

    Args:
        name: Of the module that was not found.
        words: The command line's.
    """
    config = _config()
    experiments = str(config.get("experiments_module_name", "experiments"))
    folders = (experiments, str(config.get("params_module_name", "params")))
    asked = [f"{folder}.{word}" for folder in folders for word in words]
    if name is None or not any(f"{each}.".startswith(f"{name}.") for each in asked):
        return None  # what a module of the user's imports
    if not CONFIG.exists():
        return (
            f"There is no module '{name}' and no '{CONFIG}' in '{Path.cwd()}'. Run the experiment "
            "in its project's folder."
        )
    there = "; ".join(f"in {folder}: {', '.join(_modules(folder)) or '-'}" for folder in folders)
    return f"There is no module '{name}' (seen from '{Path.cwd()}'). There are {there}."


def _config() -> dict[str, Any]:
    """Return what curifactory is configured with.

    Raises:
        ValueError: The file is not JSON.
    """
    return dict(json.loads(CONFIG.read_bytes())) if CONFIG.exists() else {}


def _modules(folder: str) -> list[str]:
    root = Path(*folder.split("."))
    return sorted(path.stem for path in root.glob("*.py") if not path.stem.startswith("_"))
