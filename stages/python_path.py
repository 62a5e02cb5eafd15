"""Where trainers find what this process finds."""

import os
import site
import sys
from pathlib import Path


def python_path() -> str:
    """Return where the trainers find what this process finds: its own folders, in its order."""
    installed = [Path(p).resolve() for p in {sys.prefix, sys.base_prefix, sys.exec_prefix}]
    library = {Path(p).resolve() for p in site.getsitepackages()}
    own = []
    for entry in (Path(p).resolve() for p in sys.path if p):
        in_library = any(entry.is_relative_to(p) for p in library) or any(
            entry.is_relative_to(p / "lib") for p in installed
        )
        if entry.exists() and not in_library:
            own.append(str(entry))
    return os.pathsep.join(dict.fromkeys([str(Path.cwd()), *own]))
