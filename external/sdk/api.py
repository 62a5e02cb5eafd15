"""The functions of the SDK, over the one session of this process.

import curitorch.external.sdk as pf

pf.init(total_train_steps=1000)
for batch in batches:
    with pf.train_step():
        loss = …
    pf.metric({"loss": loss})
    if step % 100 == 0 or pf.is_emergency_save():
        torch.save(…, os.path.join(os.environ["CKPT_DIR"], "checkpoint.pt"))
        pf.upload_checkpoint()
"""

import atexit
import contextlib
import os
import sys
from collections.abc import Mapping
from typing import Any

from .environment import place
from .errors import NotInitialized, PeriFlowError
from .local import LocalLog
from .managed import ManagedRun
from .session import Session
from .values import whole_number

_session: Session | None = None


def init(
    total_train_steps: int | None = None,
    local_log_name: str | os.PathLike[str] | None = None,
    *,
    processed_steps: int | None = None,
) -> None:
    """Begin reporting; call it once, on every rank, before any other function.

    Args:
        total_train_steps: Steps of the whole training, if known.
        local_log_name: Where metrics go when nobody launched this process.
        processed_steps: Steps that what the script goes on from has done; what the launcher
            announced (`PROCESSED_ITERS`) without it, and 0 if nobody did.

    Raises:
        PeriFlowError: It was called before, or the total is not above the processed steps.
        PeriFlowInternalError: PERIFLOW_ENABLED is 1 and a variable that it needs is missing.
    """
    global _session
    if _session is not None:
        raise PeriFlowError("init() was called before in this process. Call it once.")
    where = place()
    done = where.processed
    if processed_steps is not None:
        done = whole_number(processed_steps, what="processed_steps")
        if done < 0:
            raise PeriFlowError(f"processed_steps is {done}, expected at least 0.")
    if where.run is None:
        _session = Session(
            LocalLog(local_log_name, where.ranks), total=total_train_steps, processed=done
        )
    else:
        reporter = ManagedRun(where)
        session = Session(reporter, total=total_train_steps, processed=done)
        reporter.begin(session)
        _session = session
    atexit.register(finish)


def current() -> Session | None:
    """Return the session of this process, None before `init`."""
    return _session


def start_step() -> None:
    """Begin a training step; see `Session.start_step`."""
    _of("start_step").start_step()


def end_step() -> None:
    """End the training step; see `Session.end_step`."""
    _of("end_step").end_step()


def train_step() -> contextlib.AbstractContextManager[None]:
    """Begin a step and end it with the `with` block; see `Session.train_step`."""
    return _of("train_step").train_step()


def metric(msg: Mapping[str, Any]) -> None:
    """Report values of this step; see `Session.metric`."""
    _of("metric").metric(msg)


def upload_checkpoint(path: str | os.PathLike[str] | None = None) -> None:
    """Upload what was saved since the last time; see `Session.upload_checkpoint`."""
    _of("upload_checkpoint").upload_checkpoint(path)


def is_emergency_save() -> bool:
    """Return whether to save and upload now, on all ranks; the next step ends the script then."""
    return _of("is_emergency_save").is_emergency_save()


def finish(error: BaseException | None = None) -> None:
    """Wait for the last upload and end the session; called when the script ends.

    Args:
        error: The exception that left the script, if any.
    """
    if _session is None:
        return
    error = error or getattr(sys, "last_value", None)
    if isinstance(error, SystemExit) and error.code in (None, 0):
        error = None
    _session.close(error)


def _of(function: str) -> Session:
    if _session is None:
        raise NotInitialized(f"{function} must be called after pf.init()! Call init() first.")
    return _session
