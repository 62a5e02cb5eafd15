"""The members of a sweep, as their stages name them: gathered first, to be launched together."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from ..external.rundir import TrainingRun
from .launchers import Launcher

_MEMBERS: ContextVar[list[Launcher] | None] = ContextVar("curitorch_sweep", default=None)
_ENDED: dict[TrainingRun, Exception | None] = {}


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


def note_end(run: TrainingRun, failure: Exception | None) -> None:
    """Remember how a run of a sweep ended, for its stage: it is to report it, or to fail."""
    _ENDED[run] = failure


def raise_failure(run: TrainingRun) -> None:
    """Raise what a run failed with, once, if a sweep of this process tried to train it.

    Raises:
        TrainerFailed, TrainerStopped: It tried to.
    """
    failure = _ENDED.pop(run, None)
    if failure is not None:
        raise failure


def collect(training: Launcher) -> None:
    """Gather a training, if somebody gathers.

    Raises:
        Collected: Somebody does.
    """
    members = _MEMBERS.get()
    if members is not None:
        members.append(training)
        raise Collected
