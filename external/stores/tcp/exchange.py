"""One request to the TCP store's service and its answer, on one connection."""

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .connection_pool import ConnectionPool, is_readable

AGAIN = {408, 429, 502, 503, 504}
"""The statuses that mean: the same request may do better later."""

Failure = (OSError, http.client.HTTPException)
"""What goes wrong on the way."""


@dataclass(frozen=True)
class Reply:
    """What the service answered."""

    status: int
    headers: Mapping[str, str]
    record: dict[str, Any]

    @property
    def kind(self) -> str:
        """Why it refused; empty if it did not."""
        return str(self.record.get("kind", "")) if self.status >= 400 else ""

    @property
    def sentence(self) -> str:
        """What it said about that."""
        return str(self.record.get("error") or f"it answered {self.status}")


class Exchange:
    """A connection of `pool`, for one request; it goes back there when the answer is read.

    Raises:
        OSError: The service cannot be reached.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self.connection = pool.take()

    def send_head(self, method: str, path: str, token: str, headers: Mapping[str, str]) -> None:
        """Send all of a request but its body."""
        self.connection.putrequest(method, path, skip_accept_encoding=True)
        self.connection.putheader("Authorization", f"Bearer {token}")
        for name, value in headers.items():
            self.connection.putheader(name, value)
        self.connection.endheaders()

    def answer(self, response: http.client.HTTPResponse | None = None) -> Reply:
        """Return the answer, whose head may be read already."""
        response = response or self.connection.getresponse()
        body = response.read()
        try:
            record = json.loads(body) if body else {}
        except ValueError:
            record = {"error": body[:200].decode("utf-8", "replace")}
        reply = Reply(
            response.status,
            {name.lower(): value for name, value in response.headers.items()},
            record if isinstance(record, dict) else {},
        )
        self.finish(response)
        return reply

    def finish(self, response: http.client.HTTPResponse) -> None:
        """Let the connection be used again, after all of `response` was read."""
        self._pool.put_back(self.connection, response)

    def last_words(self) -> Reply | None:
        """Return the refusal that a service sent before it closed the connection, if it did."""
        try:
            if self.connection.sock is None or not is_readable(self.connection.sock):
                return None
            reply = self.answer()
        except (*Failure, ValueError):
            return None
        finally:
            self.close()
        return reply if reply.status >= 400 else None

    def close(self) -> None:
        """Close the connection: nobody knows what would come on it."""
        self.connection.close()


def describe(error: BaseException) -> str:
    """Return what went wrong in a few words."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
