"""What of a script cannot go on exactly: said once each, or an error where that is asked for."""

import logging

LOG = logging.getLogger("curitorch.autopatch")


class NotExact(RuntimeError):
    """Something cannot be saved so that it goes on exactly; the message says what, and where."""


class Findings:
    """Collects what cannot be exact.

    Args:
        strict: Raise at the first.
        silent: Only collect.
    """

    def __init__(self, *, strict: bool, silent: bool = False) -> None:
        self.strict = strict
        self.silent = silent
        self.said: dict[str, None] = {}

    def add(self, where: str, what: str) -> None:
        """Say that `what`, at `where`, cannot go on exactly.

        Raises:
            NotExact: The findings are strict.
        """
        self.say(f"{where}: {what}." if where else f"{what}.")

    def say(self, sentence: str) -> None:
        """Say it, once.

        Raises:
            NotExact: The findings are strict.
        """
        if self.strict:
            raise NotExact(
                f"{sentence} LATTICE_STRICT=1 allows nothing that may differ after an "
                "interruption; change the script, or unset it."
            )
        if sentence not in self.said:
            self.said[sentence] = None
            if not self.silent:
                LOG.warning("Not exact after an interruption: %s", sentence)
