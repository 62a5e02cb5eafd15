"""Programs of these tests in several processes, under torchrun."""

import os
import subprocess
import sys


def torchrun(program, *words, processes=2, seconds=240):
    """Run the Python file `program` in so many processes; returns how it ended and what it said."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *(f"--nproc-per-node={processes}", "--", str(program), *map(str, words)),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
