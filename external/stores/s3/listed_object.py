"""What a listing of a bucket tells of its objects."""

import datetime
from dataclasses import dataclass


@dataclass(frozen=True)
class S3Object:
    """One object: `key` relative to the prefix, `modified` by the server's clock."""

    key: str
    bytes: int
    etag: str
    modified: datetime.datetime


@dataclass(frozen=True)
class Listing:
    """Objects in the order of their keys, and when the server listed them, by its own clock."""

    objects: list[S3Object]
    now: datetime.datetime
