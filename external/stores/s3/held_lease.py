"""A lease on S3 that this process holds, and the thread that renews it."""

import contextlib
import threading

from ..store import Lease, LeaseLost, StoreError
from .bucket import S3Bucket
from .lease_object import lease_key, lost, newest_lease


class HeldLease:
    """Renews a lease every third of its seconds, and knows whether it is still the newest."""

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
        """Begin to renew it."""
        self._thread.start()

    def check(self) -> None:
        """Refuse it if it is not the newest, or not as this process wrote it.

        Raises:
            LeaseLost: Somebody has leased the store since.
        """
        with self._lock:
            newest = newest_lease(self._bucket)[0]
            if (
                newest is None
                or newest.key != lease_key(self._lease.token)
                or newest.etag != self._etag
            ):
                raise lost(self._bucket, self._lease, newest)

    def release(self) -> None:
        """Stop renewing and give the lease back; where that fails, it ends by itself."""
        self._ended.set()
        self._thread.join(timeout=self._seconds)
        with contextlib.suppress(StoreError):
            self.check()
            self._bucket.write(lease_key(self._lease.token), b"")

    def _renew(self) -> None:
        while not self._ended.wait(self._seconds / 3):
            try:
                self.check()
                with self._lock:
                    self._etag = self._bucket.write(lease_key(self._lease.token), self._data)
            except LeaseLost:
                return  # the next check() of a writer says so
            except StoreError:
                continue  # it is ours for as long as nobody else takes it
