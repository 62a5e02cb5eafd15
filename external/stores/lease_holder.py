"""What this process is called as the holder of a lease."""

import os
import platform
import re


def holder() -> str:
    """Return this machine's name and this process's number, e.g. `node-a-4711`."""
    return re.sub(r"[^A-Za-z0-9]+", "-", f"{platform.node()}-{os.getpid()}").strip("-")
