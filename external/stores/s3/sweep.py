"""Clearing a store on S3 of what dead writers left: files without a sidecar, parts of uploads.

Each upload has a folder of its own, `00000003-9f8a1c0de4b2a657`, whose name begins with the token
of its writer's lease, or with `free` if there was none. Whoever holds the newest lease knows that
the writers of all earlier ones are dead or have lost it; one without a lease may be alive.
"""

import contextlib
import datetime
import re
import secrets
import warnings
from collections.abc import Mapping

from ...schema import UnreadableFile
from ..sidecar import folder_name
from ..store import Lease, StoreError, StoreUnreachable
from .bucket import S3Bucket
from .errors import NoSuchObject
from .sidecars import S3Sidecars

FORGOTTEN = datetime.timedelta(days=1)  # after which an upload without a lease is a dead one's

_KEY = re.compile(r"(step-[0-9]+/)((?:([0-9]{8,18})|free)-[0-9a-f]{16}/)[^/]+")


def new_upload(lease: Lease | None) -> str:
    """Return a name for the folder of an upload that nobody has had."""
    token = "free" if lease is None else f"{lease.token:08d}"
    return f"{token}-{secrets.token_hex(8)}"


def sweep(bucket: S3Bucket, sidecars: S3Sidecars, lease: Lease) -> None:
    """Delete the uploads of earlier leases that no sidecar names, whole or not.

    What is not called as an upload is stays, and so does all there is of a step whose sidecar
    cannot be read.

    Raises:
        StoreUnreachable: The server did not answer; the next sweep goes on.
    """
    listing = bucket.list("step-")
    living = _named(sidecars, sidecars.among(listing.objects))
    for entry in listing.objects:
        match = _KEY.fullmatch(entry.key)
        if match is None or living & {match[1], match[1] + match[2]}:
            continue
        if _is_dead(match[3], listing.now - entry.modified, lease):
            bucket.delete(entry.key)
    try:
        for key, number, age in bucket.unfinished():
            match = _KEY.fullmatch(key)
            if match is not None and _is_dead(match[3], age, lease):
                with contextlib.suppress(NoSuchObject):
                    bucket.abort(key, number)
    except StoreUnreachable:
        raise
    except StoreError as error:  # not every server, and not every user, may list them
        warnings.warn(f"Unfinished uploads stay, which may cost money: {error}", stacklevel=2)


def _named(sidecars: S3Sidecars, contents: Mapping[int, bytes]) -> set[str]:
    """Return the folders that stay: those that sidecars name."""
    folders = set()
    for step, data in contents.items():
        folder = folder_name(step) + "/"
        with contextlib.suppress(UnreadableFile):  # then it is all of the step
            folder += sidecars.parse(step, data).upload + "/"
        folders.add(folder)
    return folders


def _is_dead(token: str | None, age: datetime.timedelta, lease: Lease) -> bool:
    """Return whether an upload by the holder of `token`, or nobody, is no living writer's."""
    return age > FORGOTTEN if token is None else int(token) < lease.token
