"""Managed mode: a stage, or PERIFLOW_ENABLED, launched this process; all goes to its run.

Rank 0 writes the run's journal, the others one of their own beside their log, so that each file
has one writer.
"""

import hashlib
import logging
import math
import os
import platform
import secrets
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ...params.checkpoint import CheckpointParams
from ..attempt import Attempt, end_attempt, start_attempt
from ..background_journal import BackgroundJournal
from ..layout import Layout
from ..run_lock import RunLock
from ..save_policy import retention
from ..stop import EXIT_CODES, TrainingStopped
from ..stores.kinds import open_store
from ..stores.local import LocalStore
from ..stores.settings import parse_settings
from ..stores.store import Store
from .emergency import Emergency
from .environment import Place
from .journal_reporter import JournalReporter
from .session import Session
from .uploads import Uploads

OF_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
OVERWRITTEN = ("step", "rank", "local_rank")
"""What a metric may not say of itself: it is known."""


class ManagedRun(JournalReporter):
    """Reports to a run directory.

    Args:
        place: Where this process stands; its `run` is not None.
    """

    managed = True

    def __init__(self, place: Place) -> None:
        if place.run is None:
            raise ValueError("place.run is None: a managed run needs a run directory.")
        self.place = place
        self.layout = Layout(place.run)
        self._session: Session | None = None
        self._held = ExitStack()
        self._attempt: Attempt | None = None
        self._metrics: dict[str, float] = {}
        self._saved_step = -1
        self._has_warned = False

    def begin(self, session: Session) -> None:
        """Open the journal, take the signals and look what lies in the checkpoint directory.

        Raises:
            RunLocked: Somebody else trains in this run directory; without a stage, which knows.
        """
        self._session = session
        ranks, number = self.place.ranks, self.place.attempt
        if number is None:
            logs = self.layout.run / "logs" / f"launch-{_launch_key(self.place)}"
            if ranks.rank == 0:
                self._held.enter_context(RunLock(self.layout.run))
                self._attempt = start_attempt(
                    self.layout.run, sys.orig_argv, world_size=ranks.world_size, nodes=ranks.nodes
                )
                number = self._attempt.number
        else:
            logs = self.layout.logs(number)
        own = logs / f"rank-{ranks.rank}.jsonl"
        journal = BackgroundJournal(self.layout.journal if ranks.rank == 0 else own)
        super().__init__(journal)
        self._number = number or 0
        self.begin_at(session.step)
        if session.total is not None:
            self.plan(session.total, None, None)
        self.emergency = Emergency(
            logs / "agreement",
            rank=ranks.rank,
            world_size=ranks.world_size,
            step=lambda: session.step,
        )
        self.uploads = Uploads(
            self._open_store,
            folder=logs / "agreement",
            rank=ranks.rank,
            world_size=ranks.world_size,
            retention=retention(self.place.policy),
            journal=self.journal if ranks.rank == 0 else None,
        )
        if self.place.checkpoints is not None:
            self.uploads.watch(self.place.checkpoints)
        self.emergency.listen()

    def begin_at(self, step: int) -> None:
        """Write that training goes on after `step`: what was reported beyond no longer counts."""
        ranks = self.place.ranks
        self.journal.attempt(
            self._number, resume_step=step, world_size=ranks.world_size, host=platform.node()
        )

    def metric(self, values: dict[str, Any], step: int, epoch: int | None) -> None:
        """Write the values, apart from what is known anyway."""
        for name in OVERWRITTEN:
            values.pop(name, None)
        if epoch is None and "epoch" in values and _is_number(values["epoch"]):
            epoch = int(values.pop("epoch"))
        self._metrics.update(values)
        super().metric(values, step, epoch)

    def upload(self, step: int, path: Path | None, *, emergency: bool) -> bool:
        """Upload in the background what was saved."""
        path = path or self.place.checkpoints
        if path is None:
            if not self._has_warned and self.place.ranks.rank == 0:
                self._has_warned = True
                logging.getLogger("curitorch").warning(
                    "`upload_checkpoint` does nothing because no checkpoint directory is "
                    "configured. Set CKPT_DIR, or pass the path of what you saved."
                )
            return False
        metrics = {name: value for name, value in self._metrics.items() if _is_number(value)}
        details = {
            "epoch": None if self._session is None else self._session.epoch,
            "samples": None,
            "world_size": self.place.ranks.world_size,
            "metrics": metrics,
            "save_type": "EMERGENCY" if emergency else "NORMAL",
            "time": time.time(),
        }
        self.uploads.add(step, path, details=details)
        self._saved_step = step
        return True

    def is_due(self, step: int) -> bool:
        """Return whether all ranks are to save at `step`."""
        return self.emergency.is_due(step)

    def check_goes_on(self, step: int) -> None:
        """End the script beyond the step of an emergency save.

        Raises:
            TrainingStopped: It is one; all ranks raise it at the same step.
        """
        if self.emergency.is_over(step):
            reason = self.emergency.reason or ""
            raise TrainingStopped(
                step - 1,
                reason if reason in EXIT_CODES else "SIGTERM",
                saved=self._saved_step == step - 1,
            )

    def close(self, step: int, error: BaseException | None = None) -> None:
        """Wait for the last upload and write how it ended; `error` is what left the script."""
        emergency = self.emergency
        before = emergency.signals
        self.uploads.close(is_pressed=lambda: emergency.signals > before)
        emergency.close()
        emergency.give_back_signals()
        total = None if self._session is None else self._session.total
        is_done = total is not None and step >= total
        stopped = emergency.step is not None and step >= emergency.step and not is_done
        if stopped:
            self.journal.write("stop", step=step, reason=emergency.reason or "a request")
        elif error is None:
            self.journal.write("complete", step=step, epoch=None, sdk=True)
        self.journal.fsync()
        self.journal.close()
        if self._attempt is not None:
            outcome = "stopped" if stopped else ("complete" if error is None else "failed")
            code = 143 if stopped else int(error is not None)
            end_attempt(self.layout.run, self._attempt, exit_code=code, outcome=outcome)  # type: ignore[arg-type]
        self._held.close()

    def _open_store(self) -> Store:
        return store_of(self.place.policy, self.layout)


def store_of(policy: CheckpointParams, layout: Layout) -> Store:
    """Open the store that uploads of a run go to.

    Raises:
        BadSettings: The policy's settings do not fit its kind of store.
    """
    if policy.store == "local" and not policy.store_settings:
        return LocalStore(layout.checkpoints)
    settings = parse_settings(policy.store_settings)
    name = layout.run.absolute().name
    return open_store(policy.store, {k: v.replace("{run}", name) for k, v in settings.items()})


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _launch_key(place: Place) -> str:
    """Return what the processes of one launch have in common, and no two launches."""
    names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT")
    words = [*(os.environ.get(name, "") for name in names), str(place.processed)]
    if place.ranks.world_size == 1:
        words.append(f"{os.getpid()} {time.time()}")
    elif place.ranks.nodes == 1:
        import psutil

        words.append(str(psutil.Process(os.getppid()).create_time()))
    else:
        words += [*(os.environ.get(name, "") for name in OF_SLURM), _told_by_rank_0(place)]
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:8]


def _told_by_rank_0(place: Place) -> str:
    """Return a word that no other launch has; empty where the script did not connect its ranks.

    Torchrun's own variables may be the same in the next launch, and its files would be believed.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return ""
    store = distributed.distributed_c10d._get_default_store()
    if place.ranks.rank == 0:
        store.set("curitorch launch", secrets.token_hex(8))
    return str(store.get("curitorch launch").decode())
