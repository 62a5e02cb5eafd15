"""The lease of a store on S3: one object per token, each created only where none is.

`lease-00000003.json` holds the newest one's
    {"schema": 1, "holder": "node-a", "seconds": 30.0, "nonce": "5f2a90c1d4e6b783"}
and an empty object is a lease that was given back. It is written again every third of `seconds`;
one that was not for longer is its dead holder's. All times are the server's: an object's
Last-Modified against the Date of the answer. The client's clock is never asked.

What can go wrong, as S3 cannot compare a token when an object is written: a holder that stands
still between its last look at the lease and its commit may commit although another has the lease
by then. Its checkpoint is whole, or, if the new holder has cleaned its files away, missing files
and passed over; it never replaces another one, as sidecars are created where none is.
On a server whose condition is not atomic (OpenStack Swift looks for the object when a write begins)
two who ask in the same milliseconds may both be let through. So each first writes a claim, and who
then sees another's looks again a second later whose bytes have stayed, by the object's ETag; so
does every commit.
"""

import contextlib
import json
import secrets
import time
from collections.abc import Iterator

from ...schema import UnreadableFile
from ..store import Lease, LeaseLost, StoreError, check_name
from .bucket import S3Bucket
from .errors import NoSuchObject, ObjectChanged
from .held_lease import HeldLease
from .lease_object import (
    LONGEST,
    SCHEMA,
    is_lease,
    lease_key,
    lost,
    newest_lease,
    read_lease,
    token_of,
)
from .listed_object import S3Object

_CLAIM = "lease-claim-"
_SETTLE = 1.0  # seconds within which a write that another one has begun arrives
_MARGIN = 1.0  # seconds: the server's times are whole seconds
_POLL = 0.5  # seconds between two looks at the lease of somebody who may be dead


class S3Lease:
    """Grants, renews and checks the leases of the store in `bucket`.

    Args:
        bucket: Of the store.
        seconds: After which a lease that was not renewed is free; 1 to 3600.

    Raises:
        ValueError: `seconds` is out of range.
    """

    def __init__(self, bucket: S3Bucket, seconds: float) -> None:
        if not 1 <= seconds <= LONGEST:
            raise ValueError(f"lease_seconds is {seconds}, expected 1 to {LONGEST:.0f}.")
        self._bucket = bucket
        self._seconds = seconds
        self._held: dict[Lease, HeldLease] = {}

    @contextlib.contextmanager
    def hold(self, holder: str) -> Iterator[Lease]:
        """Be the only holder for as long as the context lasts.

        Waits for as long as it takes to learn whether the holder there is lives, at most
        `seconds` of that one's lease.

        Raises:
            LeaseLost: Somebody else holds it.
        """
        check_name(holder, what="Holder")
        lease, held = self._take(holder)
        self._held[lease] = held
        held.start()
        try:
            yield lease
        finally:
            del self._held[lease]
            held.release()

    def check(self, lease: Lease) -> None:
        """Refuse a lease that is not the newest.

        Raises:
            LeaseLost: Somebody has leased the store since, or it was given back.
        """
        held = self._held.get(lease)
        if held is not None:
            held.check()
        else:  # of another process or store object
            newest = newest_lease(self._bucket)[0]
            if newest is None or token_of(newest) != lease.token or not newest.bytes:
                raise lost(self._bucket, lease, newest)
            if read_lease(self._bucket, newest.key)[0] != lease.holder:
                raise lost(self._bucket, lease, newest)

    def _take(self, holder: str) -> tuple[Lease, HeldLease]:
        claim = f"{_CLAIM}{secrets.token_hex(8)}"
        self._bucket.write(claim, b"")
        try:
            return self._create(holder, claim)
        finally:
            with contextlib.suppress(StoreError):
                self._bucket.delete(claim)

    def _create(self, holder: str, claim: str) -> tuple[Lease, HeldLease]:
        newest = self._wait_for_free()
        lease = Lease(holder, 1 + (0 if newest is None else token_of(newest)))
        record = {
            "schema": SCHEMA,
            "holder": holder,
            "seconds": self._seconds,
            "nonce": secrets.token_hex(8),
        }
        data = json.dumps(record).encode() + b"\n"
        key = lease_key(lease.token)
        try:
            etag = self._bucket.create(key, data)
        except ObjectChanged:
            raise self._somebody_else() from None
        self._check_conditions(key)
        held = HeldLease(self._bucket, lease, data, etag, self._seconds)
        listing = self._bucket.list("lease-")
        claims = {entry.key for entry in listing.objects if entry.key.startswith(_CLAIM)}
        if claims - {claim}:
            time.sleep(_SETTLE)
        try:
            held.check()
        except LeaseLost:
            raise self._somebody_else() from None
        for entry in listing.objects:
            is_old = (listing.now - entry.modified).total_seconds() > LONGEST
            if token_of(entry) < lease.token if is_lease(entry) else entry.key in claims and is_old:
                self._bucket.delete(entry.key)
        return lease, held

    def _wait_for_free(self) -> S3Object | None:
        """Return the newest lease there was, which is nobody's any more.

        Raises:
            LeaseLost: It is somebody's, who was seen to live.
        """
        first = None
        while True:
            newest, now = newest_lease(self._bucket)
            if newest is None or not newest.bytes:
                return newest
            if first is None:
                first = newest
            elif (newest.key, newest.modified) != (first.key, first.modified):
                raise self._somebody_else()
            try:
                seconds = read_lease(self._bucket, newest.key)[1]
            except NoSuchObject:  # given up just now
                time.sleep(_POLL)
                continue
            left = seconds + _MARGIN - (now - newest.modified).total_seconds()
            if left <= 0:
                return newest
            time.sleep(min(_POLL, left))

    def _check_conditions(self, key: str) -> None:
        """Refuse a server that takes no notice of conditions: stores are not safe on it."""
        try:
            self._bucket.create(key, b"")
        except ObjectChanged:
            return
        raise StoreError(
            f"'{self._bucket.endpoint}' ignores If-None-Match: two writers could overwrite each "
            "other's checkpoints. Use a server that has conditional writes."
        )

    def _somebody_else(self) -> LeaseLost:
        who = "somebody else"
        with contextlib.suppress(StoreError, UnreadableFile):
            newest = newest_lease(self._bucket)[0]
            if newest is not None and newest.bytes:
                who = repr(read_lease(self._bucket, newest.key)[0])
        return LeaseLost(
            f"'{self._bucket.address()}' is leased to {who}, who is alive. Wait for that writer to "
            "end, or use another root."
        )
