"""The members of a sweep, as their stages name them: gathered first, to be launched together."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from ..external.rundir import TrainingRun
from .launchers import Launcher

_MEMBERS: ContextVar[list[Launcher] | None] = ContextVar("curitorch_sweep", default=None)
_TRAINED: set[TrainingRun] = set()


class Collected(BaseException):
    """Leaves the body of a stage whose training was gathered; no handler of errors takes it."""


@contextlib.contextmanager
def collecting() -> Iterator[list[Launcher]]:
    """Gather what stages would launch in the block, and launch nothing."""
    members: list[Launcher] = []
    token = _MEMBERS.set(members)
    try:
        yield members
    finally:
        _MEMBERS.reset(token)


def note_trained(run: TrainingRun) -> None:
    """Remember that a sweep of this process trained a run: its stage is to report it."""
    _TRAINED.add(run)


def was_trained(run: TrainingRun) -> bool:
    """Return whether a sweep of this process trained a run, once."""
    if run not in _TRAINED:
        return False
    _TRAINED.remove(run)
    return True


def collect(training: Launcher) -> None:
    """Gather a training, if somebody gathers.

    Raises:
        Collected: Somebody does.
    """
    members = _MEMBERS.get()
    if members is not None:
        members.append(training)
        raise Collected
