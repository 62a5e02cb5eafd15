"""The token file: who may use the service, one bearer token per line.

    # a comment
    9f86d081884c7d659a2feaa0c55ad015
    60303ae22b998861bce3b28f33eec1be digits digits-large

A token with job names after it is for these jobs only. The file is read again when it changes:
to rotate, add the new token, give it to the clients, then take the old one away.
"""

import hashlib
import hmac
from pathlib import Path

from ..store import check_name
from ..tcp.wire import Kind
from .refusal import Refusal

SHORTEST = 16


class BadTokenFile(ValueError):
    """The token file cannot be used; the message says why and where."""


class TokenFile:
    """Reads a token file and keeps up with it.

    While the file is missing, empty or wrong nobody is let in: clients are told to try again.

    Args:
        path: Of the file; only its owner should be able to read it.

    Raises:
        BadTokenFile: At the start, where a person can mend it at once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tokens, self._seen = read_tokens(path), _identity(path)

    def check(self, header: str | None, *, job: str | None) -> None:
        """Let a request pass.

        Args:
            header: The value of its Authorization header.
            job: The job that it is about, None for one about no job.

        Raises:
            Refusal: No token, a wrong one, or one for other jobs.
        """
        self._keep_up()
        scheme, _, token = (header or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Refusal(
                Kind.UNAUTHORIZED,
                "The request has no token. Send it as 'Authorization: Bearer TOKEN'.",
            )
        offered = _digest(token.strip())
        allowed: frozenset[str] | None = None
        known = False
        for digest, jobs in self._tokens.items():  # all of them: the time tells nothing
            if hmac.compare_digest(digest, offered):
                known, allowed = True, jobs
        if not known:
            raise Refusal(
                Kind.UNAUTHORIZED,
                "The token is not one of the service's. Was it rotated? Read the token file again.",
            )
        if allowed and job is not None and job not in allowed:
            raise Refusal(
                Kind.UNAUTHORIZED, f"The token is not for job {job!r}. Use that job's.", status=403
            )

    def _keep_up(self) -> None:
        try:
            identity = _identity(self.path)
            if identity != self._seen:
                self._tokens, self._seen = read_tokens(self.path), identity
        except BadTokenFile as error:
            raise Refusal(
                Kind.BUSY,
                "The service's token file cannot be used at the moment. Try again in a while.",
            ) from error


def read_tokens(path: Path) -> dict[bytes, frozenset[str] | None]:
    """Return the digests of the tokens, each with the jobs that it is for; None for all.

    Raises:
        BadTokenFile: The file is missing or unreadable, has no token, or a bad line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadTokenFile(f"Token file '{path}' cannot be read ({error}).") from error
    tokens: dict[bytes, frozenset[str] | None] = {}
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words[0]) < SHORTEST:
            raise BadTokenFile(
                f"Token file '{path}', line {number}: the token has {len(words[0])} characters, "
                f"expected {SHORTEST} or more. Make one: "
                'python -c "import secrets; print(secrets.token_hex(32))"'
            )
        try:
            jobs = frozenset(check_name(word, what="Job") for word in words[1:])
        except ValueError as error:
            raise BadTokenFile(f"Token file '{path}', line {number}: {error}") from error
        tokens[_digest(words[0])] = jobs or None
    if not tokens:
        raise BadTokenFile(f"Token file '{path}' has no token. Write one per line.")
    return tokens


def _digest(token: str) -> bytes:
    # Digests are all of one length, so that comparing them does not tell a token's.
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _identity(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise BadTokenFile(f"Token file '{path}' cannot be read ({error}).") from error
    return status.st_ino, status.st_size, status.st_mtime_ns
