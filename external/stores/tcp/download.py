"""A download: a file on its way from the TCP store's service, gone on with where it was cut."""

import time

from .connection import Connection
from .exchange import Reply
from .file_transfer import CutShort
from .landing import FileLanding


def receive(connection: Connection, path: str, landing: FileLanding, size: int) -> Reply | None:
    """Bring a file to `landing`; returns a refusal, or None.

    Args:
        connection: To the service.
        path: The file's address.
        landing: Where it goes; it may have a part already.
        size: The file's, as its sidecar says.

    Raises:
        StoreUnreachable: The service does not do its part.
        OSError: `landing` cannot write it.
    """
    patience = connection.patience
    failures, started = 0, time.monotonic()
    while True:
        before = landing.bytes
        try:
            reply = connection.files.receive(path, offset=before, landing=landing)
        except CutShort as cut:
            if landing.bytes >= size:
                return None  # all is there
            failures = 1 if landing.bytes > before else failures + 1
            if failures >= patience.tries:
                seconds = time.monotonic() - started
                raise connection.unreachable(str(cut), failures, seconds) from cut
            patience.pause(failures)
            continue
        refused = reply.status >= 400 and reply.status != 416  # 416: of one that became shorter
        return reply if refused else None
