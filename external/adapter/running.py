"""Runs one fit that was put together: set up, trained, saved, torn down, or ended by an error."""

from collections.abc import Callable
from typing import Any

from ...params.checkpoint import CheckpointParams
from ..journal import Journal
from ..stop import StopRequest
from ..stores.store import Lease, Store
from .fit import Fit
from .loop import Loop
from .saving import Saving
from .set_up import begin, end_after, listening, set_up, tear_down


def run(
    fit: Fit,
    store: Store | None,
    policy: CheckpointParams,
    *,
    read: Callable[[], dict[str, Any] | None],
    stopping: dict[str, Any],
    journal: Journal | None,
    stop: StopRequest,
    lease: Lease | None,
    arguments: dict[str, Any] | None,
) -> None:
    """Train `fit` to its end.

    Args:
        fit: As `assembly` made it.
        store: Where its checkpoints go; None: nowhere.
        policy: When they are saved and which stay.
        read: Reads the checkpoint that it goes on from, if there is one.
        stopping: Of EarlyStopping.
        journal: Where rank 0 writes what it saved.
        stop: The stop request of this process; its handlers are installed meanwhile.
        lease: The right to write to the store.
        arguments: The model's constructor arguments, for the record that reloads it.

    Raises:
        TrainingStopped: It was asked to stop.
    """
    saving: Saving | None = None
    with listening(stop):
        try:
            checkpoint = set_up(fit, read, stopping=stopping)
            saving = Saving(
                fit, store, policy, journal=journal, stop=stop, lease=lease, arguments=arguments
            )
            begin(fit, checkpoint)
            checkpoint = None  # its memory
            Loop(fit, saving).run()
            saving.writer.close()
        except BaseException as error:
            end_after(error, fit, saving)
            raise
        finally:
            if fit.bar is not None:
                fit.bar.close()
            fit.logged.detach()
            fit.data.close()
    tear_down(fit)
