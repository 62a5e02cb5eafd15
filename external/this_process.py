"""The number of this process, without a system call: a fork is told of its own as it begins.

Asking the system takes half a microsecond in a training step, whose caches hold other things.
"""

import os

pid = os.getpid()


def _begin() -> None:
    global pid
    pid = os.getpid()


os.register_at_fork(after_in_child=_begin)
