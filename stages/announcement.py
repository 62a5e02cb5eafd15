"""Announcing a command so that it can be pasted: one unbroken line on terminal and in the log."""

import logging
import shlex
from collections.abc import Sequence

from rich.logging import RichHandler


def announce(title: str, command: Sequence[str]) -> None:
    """Log `title` and the exact command, as INFO.

    curifactory's handler for terminals folds long lines into a column and puts its own words
    beside them; there the command goes on a line of its own, which the terminal folds.
    """
    root = logging.getLogger()  # curifactory disables every other logger that exists
    if not root.isEnabledFor(logging.INFO):
        return
    words = shlex.join(command)
    record = root.makeRecord(root.name, logging.INFO, __file__, 0, f"{title}: {words}", (), None)
    for handler in root.handlers:
        if isinstance(handler, RichHandler):
            handler.console.print(
                f"{title}:\n{words}", soft_wrap=True, markup=False, highlight=False
            )
        elif record.levelno >= handler.level:
            handler.handle(record)
