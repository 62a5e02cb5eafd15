"""Our own trainer reports through the SDK, as any script does: a logger over its journal."""

from argparse import Namespace
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from .journal import Journal
from .sdk.journal_reporter import JournalReporter
from .sdk.lightning_logger import SessionLogger
from .sdk.session import Session


class JournalLogger(SessionLogger):
    """Writes one `step` event per optimizer step and one `metric` event per logging call.

    Give the same instance to `Trainer(logger=…)` and `Trainer(callbacks=[…])`. A metric's step is
    the number of optimizer steps done when it was logged, for training and validation alike.

    Args:
        journal: Where rank 0 writes; None on the other ranks.
    """

    def __init__(self, journal: Journal | None) -> None:
        super().__init__()
        self._journal = journal
        self.session = None if journal is None else Session(JournalReporter(journal))

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: object, **kwargs: object
    ) -> None:
        """Write the hyperparameters as one event; what is not plain data as its text."""
        if self._journal is not None:
            values = vars(params) if isinstance(params, Namespace) else dict(params)
            plain = (str, int, float, bool, type(None))
            self._journal.write(
                "hyperparameters",
                values={k: v if isinstance(v, plain) else str(v) for k, v in values.items()},
            )
