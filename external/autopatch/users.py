"""Which classes are the user's own: those of the files that were rewritten."""

import sys


class Users:
    """Knows the user's modules: `files` are the paths of what was rewritten."""

    def __init__(self) -> None:
        self.files: set[str] = set()

    def is_class(self, kind: type) -> bool:
        """Return whether the user wrote `kind`."""
        module = sys.modules.get(kind.__module__)
        return module is not None and getattr(module, "__file__", None) in self.files


USERS = Users()
