"""What a lease on S3 is: an object per token, of which the newest counts. See s3_lease.py."""

import datetime
import json
import re

from ...schema import UnreadableFile, check_schema
from ..store import Lease, LeaseLost
from .bucket import S3Bucket
from .listed_object import S3Object

SCHEMA = 1

LONGEST = 3600.0  # seconds without renewal: nobody waits longer for a dead holder

_KEY = re.compile(r"lease-([0-9]{8,18})\.json")


def newest_lease(bucket: S3Bucket) -> tuple[S3Object | None, datetime.datetime]:
    """Return the lease with the highest token, and the server's time."""
    listing = bucket.list("lease-")
    leases = [entry for entry in listing.objects if is_lease(entry)]
    return max(leases, key=token_of, default=None), listing.now


def read_lease(bucket: S3Bucket, key: str) -> tuple[str, float]:
    """Return the holder of a lease, and its seconds.

    Raises:
        NoSuchObject: It is gone.
        UnreadableFile: It is altered, or a newer curitorch wrote it.
    """
    where = f"'{bucket.address(key)}'"
    data = bucket.read(key)
    if not data:
        return "nobody", 0.0
    try:
        record = json.loads(data)
        check_schema(record, where=where, newest=SCHEMA)
        seconds = float(record["seconds"])
        if not 0 < seconds <= LONGEST:
            raise ValueError(f"{seconds} seconds")
        return str(record["holder"]), seconds
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, UnreadableFile):
            raise
        raise UnreadableFile(
            f"{where} cannot be read ({error!r}). If nobody writes, delete it."
        ) from error


def lost(bucket: S3Bucket, lease: Lease, newest: S3Object | None) -> LeaseLost:
    """Return the error for a lease that is not `newest`."""
    now = "given back" if newest is None or not newest.bytes else f"of token {token_of(newest)}"
    return LeaseLost(
        f"'{bucket.address()}' is no longer leased to {lease.holder!r} (token {lease.token}): the "
        f"newest lease is {now}. Nothing was written; lease it again to go on."
    )


def lease_key(token: int) -> str:
    """Return the key of the lease with that token."""
    return f"lease-{token:08d}.json"


def is_lease(entry: S3Object) -> bool:
    """Return whether an object is a lease, by its key."""
    return _KEY.fullmatch(entry.key) is not None


def token_of(entry: S3Object) -> int:
    """Return the token of a lease; 0 of what is none."""
    match = _KEY.fullmatch(entry.key)
    return int(match[1]) if match else 0
