"""What S3 and boto3 report, as errors of a store: each one sentence that says what to do.

Codes are those of "Error responses" in the API reference of Amazon S3; other servers use the same.
"""

import contextlib
import datetime
import email.utils
from collections.abc import Iterator, Mapping
from typing import Any

from ..store import StoreError, StoreUnreachable

_MISSING = ("NoSuchKey", "NoSuchUpload", "404", "NotFound")
_CHANGED = ("PreconditionFailed", "412")
_CREDENTIALS = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or profile=NAME of ~/.aws."

_SENTENCES: Mapping[str, str] = {
    "NoSuchBucket": "there is no bucket {bucket!r}. Create it, or name another in root=s3://…",
    "InvalidBucketName": "{bucket!r} is no name for a bucket. Name another in root=s3://…",
    "SignatureDoesNotMatch": "the secret key is wrong. " + _CREDENTIALS,
    "InvalidAccessKeyId": "the access key is not known there. " + _CREDENTIALS,
    "ExpiredToken": "the credentials have expired. Get new ones and start again.",
    "InvalidToken": "the session token is not valid. Get new credentials and start again.",
    "AccessDenied": "these credentials may not do that. Allow them s3:ListBucket, s3:GetObject, "
    "s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload in bucket {bucket!r}.",
    "RequestTimeTooSkewed": "the clock of this machine is {skew}, more than S3 accepts. Set it.",
    "PermanentRedirect": "bucket {bucket!r} is in another region. Write region=NAME.",
    "AuthorizationHeaderMalformed": "bucket {bucket!r} is in another region. Write region=NAME.",
    "IllegalLocationConstraintException": "bucket {bucket!r} is in another region. "
    "Write region=NAME.",
    "NotImplemented": "the server does not know this request, which a store needs ({message}). "
    "Use one that has conditional writes.",
    "QuotaExceeded": "the quota of bucket {bucket!r} is used up. Delete something there.",
    "EntityTooLarge": "the server takes no object of that size. Write a smaller part_bytes=….",
}
_ALIASES = {
    "403": "AccessDenied",
    "Forbidden": "AccessDenied",
    "AllAccessDisabled": "AccessDenied",
    "301": "PermanentRedirect",
    "501": "NotImplemented",
    "TokenRefreshRequired": "ExpiredToken",
}
_CONFLICTS = ("ConditionalRequestConflict", "OperationAborted", "409")
_BUSY = ("SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "Throttling")


class NoSuchObject(StoreError):
    """There is no object of that key."""


class ObjectChanged(StoreError):
    """A condition did not hold: there is an object where none was to be, or another than before."""


class CutOff(StoreUnreachable):
    """An answer was cut off; asking again may help."""


class ObjectBusy(StoreUnreachable):
    """Another writer is just writing that object; nothing was changed."""


@contextlib.contextmanager
def explained_errors(endpoint: str, bucket: str, doing: str) -> Iterator[None]:
    """Turn errors of boto3 in the context into errors of a store.

    Args:
        endpoint: The server's address.
        bucket: The bucket's name.
        doing: What is being done, for messages, e.g. `listing 's3://bucket/job/'`.

    Raises:
        NoSuchObject, ObjectChanged, ObjectBusy: The server said so.
        CutOff: Its answer was cut off in the middle, where boto3 does not try again.
        StoreUnreachable: The server did not answer, or not to the end, or is too busy.
        StoreError: It refused, or there are no credentials.
    """
    import boto3.exceptions
    import botocore.exceptions as errors
    import s3transfer.exceptions
    import urllib3.exceptions

    try:
        yield
    except errors.ClientError as error:
        raise _refused(error.response, endpoint, bucket, doing) from error
    except (errors.NoCredentialsError, errors.PartialCredentialsError) as error:
        raise StoreError(
            f"{_begun(doing)} failed: there are no credentials. {_CREDENTIALS}"
        ) from error
    except (
        errors.ResponseStreamingError,
        errors.IncompleteReadError,
        urllib3.exceptions.ProtocolError,
    ) as error:
        raise cut_off(endpoint, doing) from error
    except (
        errors.ConnectionError,  # of botocore: refused, unknown host, timeout, TLS
        errors.HTTPClientError,
        s3transfer.exceptions.RetriesExceededError,
        urllib3.exceptions.HTTPError,
    ) as error:
        cause = getattr(error, "last_exception", None) or error
        raise StoreUnreachable(
            f"'{endpoint}' did not answer while {doing} ({type(cause).__name__}: "
            f"{_one_line(cause)}). Check the address and the network, and try again."
        ) from error
    except (
        errors.BotoCoreError,
        boto3.exceptions.Boto3Error,
        s3transfer.exceptions.S3ValidationError,
    ) as error:
        raise StoreError(
            f"{_begun(doing)} at '{endpoint}' failed: {type(error).__name__}: {_one_line(error)}"
        ) from error


def cut_off(endpoint: str, doing: str) -> CutOff:
    """Return the error for an answer of which the end is missing."""
    return CutOff(f"'{endpoint}' answered in part only while {doing}. Try again.")


def _refused(response: dict[str, Any], endpoint: str, bucket: str, doing: str) -> StoreError:
    """Return the error for a server's refusal."""
    code = str(response.get("Error", {}).get("Code", ""))
    message = _one_line(response.get("Error", {}).get("Message", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _MISSING:
        return NoSuchObject(f"{_begun(doing)} failed: there is no such object at '{endpoint}'.")
    if code in _CHANGED:
        return ObjectChanged(f"{_begun(doing)} failed: another object is there.")
    if code in _CONFLICTS:
        return ObjectBusy(f"{_begun(doing)} failed: another writer is just doing so. Try again.")
    code = _ALIASES.get(code, code)
    if code in _SENTENCES:
        sentence = _SENTENCES[code].format(bucket=bucket, message=message, skew=_skew(response))
        return StoreError(f"{_begun(doing)} at '{endpoint}' failed: {sentence}")
    if code in _BUSY or status >= 500:
        return StoreUnreachable(
            f"'{endpoint}' is too busy or broken for {doing} ({code or status}: {message}). "
            "Try again later."
        )
    return StoreError(
        f"{_begun(doing)} at '{endpoint}' failed: it was refused ({code or status}: {message})."
    )


def server_time(response: Mapping[str, Any]) -> datetime.datetime:
    """Return when the server answered, by its own clock, to the second."""
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    try:
        return email.utils.parsedate_to_datetime(headers["date"])
    except (KeyError, TypeError, ValueError):
        raise StoreError("The server's answer has no Date, which leases need.") from None


def _skew(response: Mapping[str, Any]) -> str:
    """Return how far the client's clock is off, e.g. `20 minutes ahead of the server's`."""
    from botocore.compat import get_current_datetime  # the clock that requests are signed by

    try:
        now = get_current_datetime(remove_tzinfo=False)
        seconds = (now - server_time(response)).total_seconds()
    except StoreError:
        return "wrong"
    side = "ahead of" if seconds > 0 else "behind"
    return f"{abs(seconds) / 60:.0f} minutes {side} the server's"


def _begun(doing: str) -> str:
    return doing[0].upper() + doing[1:]


def _one_line(value: object) -> str:
    return " ".join(str(value).split())[:300]
