"""Asking a server that speaks S3, until a whole answer came; errors are those of a store."""

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from ..store import StoreError
from .errors import CutOff, cut_off, explained_errors

_Result = TypeVar("_Result")

CONNECTIONS = 16  # at most, at a time

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{1,221}")  # old names, access points' aliases
_LONGEST_PREFIX = 600  # bytes, of the 1024 that a key may have


class S3Client:
    """boto3's client for the objects below one prefix. Safe to use from several threads.

    Args:
        root: `s3://bucket/some/prefix/`.
        endpoint_url: Of a server that is not Amazon's.
        region: Of the bucket.
        profile: Whose credentials, of ~/.aws.
        timeout: Seconds without an answer after which a request has failed.
        attempts: How often a request is tried in all.
        part_bytes: Size of a part of a large object; S3 wants at least 5 MiB.

    Raises:
        ValueError: `root` is not such an address, or a number is out of range.
        StoreError: There is no such profile.
        ModuleNotFoundError: There is no boto3.
    """

    def __init__(
        self,
        root: str,
        *,
        endpoint_url: str | None,
        region: str | None,
        profile: str | None,
        timeout: float,
        attempts: int,
        part_bytes: int,
    ) -> None:
        self.name, self.prefix = _parse(root)
        if timeout <= 0 or attempts < 1 or part_bytes < 5 << 20:
            raise ValueError(
                f"timeout={timeout}, attempts={attempts}, part_bytes={part_bytes}: expected more "
                "than 0, at least 1, and at least 5 MiB (5242880)."
            )
        self.part_bytes = part_bytes
        self._attempts = attempts
        self.client = _client(
            endpoint_url=endpoint_url,
            region=region,
            profile=profile,
            timeout=timeout,
            attempts=attempts,
        )
        self.endpoint = str(self.client.meta.endpoint_url)

    def address(self, key: str = "") -> str:
        """Return how people write the address of an object."""
        return f"s3://{self.name}/{self.prefix}{key}"

    def ask(
        self,
        request: Callable[..., dict[str, Any]],
        verb: str,
        key: str,
        needed: tuple[str, ...],
        /,
        **arguments: Any,
    ) -> dict[str, Any]:
        """Return the answer to a request, with all of its body.

        boto3 takes an answer that was cut off in its head for a whole one without those fields.

        Args:
            request: A method of `client`.
            verb: What is being done, for messages.
            key: To what.
            needed: Fields that a whole answer has.
            arguments: Of the request.

        Raises:
            CutOff: It is not whole, at the last attempt either.
        """

        def ask() -> dict[str, Any]:
            with self.explained(verb, key):
                answer = request(Bucket=self.name, **arguments)
                if "Body" in answer:
                    answer["Body"] = answer["Body"].read()
            if any(name not in answer for name in needed):
                raise cut_off(self.endpoint, f"{verb} '{self.address(key)}'")
            return answer

        return self.again(ask)

    def again(self, action: Callable[[], _Result]) -> _Result:
        """Return what `action` returns, tried again for as often as an answer is cut off.

        Raises:
            CutOff: It was each time.
        """
        for left in reversed(range(self._attempts)):
            try:
                return action()
            except CutOff:
                if not left:
                    raise
        raise AssertionError("unreachable: the last round returns or raises")

    @contextlib.contextmanager
    def explained(self, verb: str, key: str) -> Iterator[None]:
        """Turn errors of boto3 into errors of a store, as `explained_errors` does."""
        doing = f"{verb} '{self.address(key)}'"
        try:
            with explained_errors(self.endpoint, self.name, doing):
                yield
        except KeyError as error:  # s3transfer's, of a field that was cut off
            raise cut_off(self.endpoint, doing) from error

    def close(self) -> None:
        """Close the connections."""
        self.client.close()


def _parse(root: str) -> tuple[str, str]:
    """Return the bucket and the prefix of `s3://bucket/prefix/`; a prefix ends in '/'.

    Raises:
        ValueError: It is not such an address.
    """
    scheme, _, rest = root.partition("://")
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.rstrip("/")
    parts = prefix.split("/") if prefix else []
    if scheme != "s3" or not _BUCKET.fullmatch(bucket):
        raise ValueError(f"root {root!r} is not an address of S3. Write root=s3://BUCKET/JOB/.")
    if any(part in ("", ".", "..") or not part.isprintable() for part in parts):
        raise ValueError(
            f"root {root!r} has an empty part, '.', '..' or a control character in it. "
            "Write root=s3://BUCKET/JOB/."
        )
    if len(prefix.encode()) > _LONGEST_PREFIX:
        raise ValueError(
            f"root {root[:40]!r}… has a prefix of {len(prefix.encode())} bytes. "
            f"Use {_LONGEST_PREFIX} at most."
        )
    return bucket, "/".join(parts) + "/" if parts else ""


def _client(
    *,
    endpoint_url: str | None,
    region: str | None,
    profile: str | None,
    timeout: float,
    attempts: int,
) -> Any:
    """Return boto3's client; nothing is sent yet. Its arguments are those of S3Store.

    Raises:
        StoreError: There is no such profile.
        ModuleNotFoundError: There is no boto3.
    """
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise ModuleNotFoundError('S3Store needs boto3: pip install "curitorch[s3]".') from error
    config = Config(
        connect_timeout=min(timeout, 10),
        read_timeout=timeout,
        max_pool_connections=CONNECTIONS,
        retries={"mode": "standard", "total_max_attempts": attempts},
    )
    try:
        session = boto3.Session(profile_name=profile, region_name=region)
        return session.client("s3", endpoint_url=endpoint_url, config=config)
    except (BotoCoreError, ValueError) as error:
        raise StoreError(f"S3 cannot be used with these settings: {error}") from error
