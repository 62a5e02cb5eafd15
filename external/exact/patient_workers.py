"""Workers of a DataLoader that live on when a signal is meant for the rank, which is to save.

`scancel` and Ctrl-C signal every process there is. torch's workers would die of it, and the rank
of that, before it could save. Here only the rank ends its workers: by asking them, by SIGTERM from
itself and no one else, or by its death.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from torch.utils.data import DataLoader


@dataclass(frozen=True)
class PatientStart:
    """What a worker does first; `then` is the user's `worker_init_fn`."""

    then: Callable[[int], None] | None

    def __call__(self, worker: int) -> None:
        """Live on when others send signals; runs in the worker."""
        parent = multiprocessing.parent_process()
        if parent is not None and hasattr(signal, "sigwaitinfo"):
            signal.signal(signal.SIGINT, _let_be)
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
        if self.then is not None:
            self.then(worker)


@contextlib.contextmanager
def patient_workers(loader: Any) -> Iterator[None]:
    """Have the workers that `loader` starts in the block live on, from their first moment."""
    if not isinstance(loader, DataLoader) or loader.num_workers == 0:
        yield
        return
    if not isinstance(loader.worker_init_fn, PatientStart):
        loader.worker_init_fn = PatientStart(loader.worker_init_fn)
    if not hasattr(signal, "sigwaitinfo"):  # macOS
        yield
        return
    if (loader.multiprocessing_context or multiprocessing).get_start_method() != "fork":
        resource_tracker.ensure_running()  # else begun by the first worker, which lifts the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})  # inherited
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with(parent: BaseProcess) -> None:
    """End this worker by a SIGTERM of its parent, or by anybody's once that is gone."""
    while True:
        asked = signal.sigwaitinfo({signal.SIGTERM})
        if asked.si_pid == parent.pid or not parent.is_alive():
            os._exit(0)  # as torch's workers do


def _let_be(number: int, frame: FrameType | None) -> None:
    """Do nothing, and unlike SIG_IGN let programs that a worker starts listen."""
