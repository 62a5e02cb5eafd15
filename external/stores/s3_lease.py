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
import datetime
import json
import re
import secrets
import threading
import time
from collections.abc import Iterator

from ..schema import UnreadableFile, check_schema
from .s3_bucket import S3Bucket, S3Object
from .s3_errors import NoSuchObject, ObjectChanged
from .store import Lease, LeaseLost, StoreError, check_name

SCHEMA = 1

LONGEST = 3600.0  # seconds without renewal: nobody waits longer for a dead holder

_KEY = re.compile(r"lease-([0-9]{8,18})\.json")
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
        self._held: dict[Lease, _Held] = {}

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
            newest = _newest(self._bucket)[0]
            if newest is None or _token(newest) != lease.token or not newest.bytes:
                raise _lost(self._bucket, lease, newest)
            if _read(self._bucket, newest.key)[0] != lease.holder:
                raise _lost(self._bucket, lease, newest)

    def _take(self, holder: str) -> "tuple[Lease, _Held]":
        claim = f"{_CLAIM}{secrets.token_hex(8)}"
        self._bucket.write(claim, b"")
        try:
            return self._create(holder, claim)
        finally:
            with contextlib.suppress(StoreError):
                self._bucket.delete(claim)

    def _create(self, holder: str, claim: str) -> "tuple[Lease, _Held]":
        newest = self._wait_for_free()
        lease = Lease(holder, 1 + (0 if newest is None else _token(newest)))
        record = {
            "schema": SCHEMA,
            "holder": holder,
            "seconds": self._seconds,
            "nonce": secrets.token_hex(8),
        }
        data = json.dumps(record).encode() + b"\n"
        key = _key(lease.token)
        try:
            etag = self._bucket.create(key, data)
        except ObjectChanged:
            raise self._somebody_else() from None
        self._check_conditions(key)
        held = _Held(self._bucket, lease, data, etag, self._seconds)
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
            if _token(entry) < lease.token if _is_lease(entry) else entry.key in claims and is_old:
                self._bucket.delete(entry.key)
        return lease, held

    def _wait_for_free(self) -> S3Object | None:
        """Return the newest lease there was, which is nobody's any more.

        Raises:
            LeaseLost: It is somebody's, who was seen to live.
        """
        first = None
        while True:
            newest, now = _newest(self._bucket)
            if newest is None or not newest.bytes:
                return newest
            if first is None:
                first = newest
            elif (newest.key, newest.modified) != (first.key, first.modified):
                raise self._somebody_else()
            try:
                seconds = _read(self._bucket, newest.key)[1]
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
            newest = _newest(self._bucket)[0]
            if newest is not None and newest.bytes:
                who = repr(_read(self._bucket, newest.key)[0])
        return LeaseLost(
            f"'{self._bucket.address()}' is leased to {who}, who is alive. Wait for that writer to "
            "end, or use another root."
        )


class _Held:
    """A lease that this process holds, and the thread that renews it."""

    def __init__(
        self, bucket: S3Bucket, lease: Lease, data: bytes, etag: str, seconds: float
    ) -> None:
        self._bucket = bucket
        self._lease = lease
        self._data = data
        self._etag = etag
        self._seconds = seconds
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="curitorch-lease", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def check(self) -> None:
        with self._lock:
            newest = _newest(self._bucket)[0]
            if newest is None or newest.key != _key(self._lease.token) or newest.etag != self._etag:
                raise _lost(self._bucket, self._lease, newest)

    def release(self) -> None:
        """Stop renewing and give the lease back; where that fails, it ends by itself."""
        self._ended.set()
        self._thread.join(timeout=self._seconds)
        with contextlib.suppress(StoreError):
            self.check()
            self._bucket.write(_key(self._lease.token), b"")

    def _renew(self) -> None:
        while not self._ended.wait(self._seconds / 3):
            try:
                self.check()
                with self._lock:
                    self._etag = self._bucket.write(_key(self._lease.token), self._data)
            except LeaseLost:
                return  # the next check() of a writer says so
            except StoreError:
                continue  # it is ours for as long as nobody else takes it


def _newest(bucket: S3Bucket) -> tuple[S3Object | None, datetime.datetime]:
    """Return the lease with the highest token, and the server's time."""
    listing = bucket.list("lease-")
    leases = [entry for entry in listing.objects if _is_lease(entry)]
    return max(leases, key=_token, default=None), listing.now


def _read(bucket: S3Bucket, key: str) -> tuple[str, float]:
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
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, UnreadableFile):
            raise
        raise UnreadableFile(
            f"{where} cannot be read ({error!r}). If nobody writes, delete it."
        ) from error


def _lost(bucket: S3Bucket, lease: Lease, newest: S3Object | None) -> LeaseLost:
    now = "given back" if newest is None or not newest.bytes else f"of token {_token(newest)}"
    return LeaseLost(
        f"'{bucket.address()}' is no longer leased to {lease.holder!r} (token {lease.token}): the "
        f"newest lease is {now}. Nothing was written; lease it again to go on."
    )


def _key(token: int) -> str:
    return f"lease-{token:08d}.json"


def _is_lease(entry: S3Object) -> bool:
    return _KEY.fullmatch(entry.key) is not None


def _token(entry: S3Object) -> int:
    match = _KEY.fullmatch(entry.key)
    return int(match[1]) if match else 0
