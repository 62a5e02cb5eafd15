"""Workers end with a process that is killed while it starts them."""

import signal
import subprocess
import sys

SCRIPT = """
import os, signal
from curitorch.external.autopatch.worker_leash import with_workers_on_leash

def start():
    child = os.fork()
    if child == 0:
        signal.pause()  # long before it would look for its parent
    print(child, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

with_workers_on_leash(start)
"""


def test_a_worker_ends_with_a_process_that_is_killed_as_it_starts_it():
    done = subprocess.run(  # a worker that lives on holds the pipe open
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert int(done.stdout) > 0
