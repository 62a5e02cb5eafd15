"""Running a notebook as Jupyter does."""

import tempfile
from pathlib import Path

from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets.config import Config


def execute(notebook: NotebookNode, *, cwd: Path) -> None:
    """Run all cells with `cwd` as the working directory; their outputs are in `notebook` then.

    The kernel is spoken to by sockets that are files. It would be told free ports otherwise, and
    find them taken when it has started.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        on_files = {"transport": "ipc", "ip": f"{folder}/kernel"}
        NotebookClient(
            notebook,
            timeout=240,
            startup_timeout=240,
            resources={"metadata": {"path": str(cwd)}},
            config=Config(KernelManager=on_files),
        ).execute()
