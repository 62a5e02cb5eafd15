"""The process groups of torch.distributed: what a trainer began, it leaves before its process ends.

Threads of gloo's that still give tensors back while the interpreter ends abort the process, by
SIGABRT and "terminate called without an active exception": its work is done, and it has failed.
"""

import contextlib
import sys
from collections.abc import Iterator

from .stop import EXIT_CODES


@contextlib.contextmanager
def groups_left() -> Iterator[None]:
    """Leave the groups that are begun in the block where it ends well, or as it was asked to stop.

    All ranks do both together. After an error none is left: that would wait for what is under way
    in it, where other ranks may be for ever.
    """
    is_of_others = _are_begun()
    ends = True
    try:
        yield
    except BaseException as error:
        ends = isinstance(error, SystemExit) and error.code in (None, 0, *EXIT_CODES.values())
        raise
    finally:
        if ends and not is_of_others and _are_begun():
            sys.modules["torch.distributed"].destroy_process_group()


def _are_begun() -> bool:
    """Return whether this process is in a group; torch is not imported to find that out."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and distributed.is_initialized()
