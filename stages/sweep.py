"""Training many records at once: one job array, or one after the other on this machine.

    with training_sweep(train, records, at_once=4) as trained:
        for record in trained:
            evaluate(record)

A member that fails stops neither the others nor the block, which gets those that are trained;
after it the sweep fails with a table of what failed.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence

from ..params.curifactory_api import Record
from .failure import TrainerFailed, TrainerStopped
from .launchers import Launcher
from .slurm.array import train_array
from .slurm.launcher import SlurmLauncher
from .slurm.queue import is_in_allocation
from .sweep_members import Collected, collecting

Stage = Callable[[Record], Record]


class SweepFailed(RuntimeError):
    """Members of a sweep failed; the message is a table of them.

    Attributes:
        failures: What became of each of them, by its name.
    """

    def __init__(self, message: str, failures: dict[str, Exception]) -> None:
        super().__init__(message)
        self.failures = failures


@contextlib.contextmanager
def training_sweep(
    train: Stage, records: Sequence[Record], *, at_once: int | None = None
) -> Iterator[list[Record]]:
    """Train all records by the stage `train`, and give the block those whose runs are complete.

    Under Slurm they are one job array, of which `at_once` members run at the same time; without
    it, as many as the cluster lets. Run again, only what is not complete is trained.

    Args:
        train: A stage of `external_training`, or one whose body calls `run_training` once.
        records: Up to and without that stage.
        at_once: Members of the array that may run at the same time.

    Raises:
        ValueError: `at_once` is less than 1.
        SweepFailed: After the block: members failed.
        KeyboardInterrupt: Ctrl-C, after the ranks have saved and stopped.
    """
    if at_once is not None and at_once < 1:
        raise ValueError(f"at_once is {at_once!r}, expected a whole number of at least 1, or None.")
    cached: list[Record] = []
    failures: dict[str, Exception] = {}
    if not records or records[0].manager.map_mode:
        yield [train(record) for record in records]
        return
    if not (records[0].manager.dry or records[0].manager.dry_cache):
        cached = _train_jobs(train, records, at_once)
    trained = []
    for record in records:
        if record in cached:
            trained.append(record)
            continue
        try:
            trained.append(train(record))
        except (TrainerFailed, TrainerStopped) as failure:
            failures[_name(record)] = failure
            _leave_stage(record)
    yield trained
    if failures:
        raise SweepFailed(table(failures, of=len(records)), failures)


def table(failures: dict[str, Exception], *, of: int) -> str:
    """Return one line for each failure: who, which rank, with what, and its log."""
    lines = [f"{len(failures)} of {of} trainings failed; the same experiment trains only these:"]
    width = max(len(name) for name in failures)
    for name, failure in failures.items():
        what, log = str(failure).splitlines()[0], ""
        if isinstance(failure, TrainerFailed):
            rank = "" if failure.rank is None else f"rank {failure.rank}: "
            what, log = f"{rank}{failure.cause}", f"  ({failure.log})"
        lines.append(f"  {name:<{width}}  {what}{log}")
    return "\n".join(lines)


def _train_jobs(train: Stage, records: Sequence[Record], at_once: int | None) -> list[Record]:
    """Train the members that Slurm is to train; returns those that are cached."""
    cached: list[Record] = []
    members: dict[str, tuple[Record, SlurmLauncher]] = {}
    for record in records:
        launcher = _launcher(train, record)
        if launcher is None:
            cached.append(record)
        elif isinstance(launcher, SlurmLauncher):
            members[_name(record)] = (record, launcher)
    if not members or is_in_allocation():
        return cached
    logging.info("%d of %d trainings are not cached.", len(members), len(records))
    train_array(members, at_once=at_once)
    return cached


def _launcher(train: Stage, record: Record) -> Launcher | None:
    """Return what the stage would launch for a record; None if its output was cached.

    The stage is called and left in its body, and what curifactory noted of that is taken back.
    """
    before = {name: list(value) for name, value in vars(record).items() if isinstance(value, list)}
    with collecting() as members:
        try:
            train(record)
        except Collected:
            for name, value in before.items():
                setattr(record, name, value)
            _leave_stage(record)
    return members[0] if members else None


def _leave_stage(record: Record) -> None:
    record.manager.stage_active = False
    record.stage_cachers = None


def _name(record: Record) -> str:
    return str(record.params.name) if record.params is not None else f"record {id(record)}"
