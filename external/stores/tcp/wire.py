"""What the TCP store and its service both know: addresses, header names, kinds of refusals.

    PUT    /jobs/JOB/uploads/ID                      {"step": 120, "files": {"model.ckpt": 90210}}
    PUT    /jobs/JOB/uploads/ID/files/NAME           the bytes; Content-Range to go on after a cut;
           …?checksum=xxh3                           the kind that is answered, or "later" for none
    HEAD   /jobs/JOB/uploads/ID/files/NAME           Upload-Offset: how many bytes are there
    DELETE /jobs/JOB/uploads/ID
    PUT    /jobs/JOB/checkpoints/STEP                the sidecar: from here on the checkpoint exists
    GET    /jobs/JOB/checkpoints                     {"checkpoints": [sidecar …], "unreadable": […],
                                                      "unknown": {"120": "…"}}
    GET    /jobs/JOB/checkpoints/STEP/files/NAME     Range is honoured
    POST   /jobs/JOB/checkpoints/STEP/verify         {"valid": false, "reason": "…"}
    DELETE /jobs/JOB/checkpoints/STEP
    POST   /jobs/JOB/lease                           {"holder": "node-a", "nonce": "5f2a…"}
    PUT    /jobs/JOB/lease                           renews the lease of the Fencing-Token
    DELETE /jobs/JOB/lease
    GET    /health, /metrics

Every request can be sent again without harm. A refusal is `{"error": sentence, "kind": "quota"}`.
"""

import enum

UPLOAD_ID = "Upload-Id"
"""Of the commit: the upload whose files become the checkpoint's."""

CHECKSUM = "checksum"
"""Of a file's address: the kind of checksum that the service computes, sha256 if it is not said."""

UPLOAD_OFFSET = "Upload-Offset"
"""How many bytes of a file the service has."""

FENCING_TOKEN = "Fencing-Token"
"""Of writes: the token of the writer's lease."""


class Kind(enum.StrEnum):
    """Why a request was refused, for programs; the sentence beside it is for people."""

    UNAUTHORIZED = "unauthorized"
    BAD_REQUEST = "bad-request"
    NOT_FOUND = "not-found"
    TOO_LARGE = "too-large"
    QUOTA = "quota"
    DISK_FULL = "disk-full"
    EXISTS = "exists"
    LEASE = "lease"
    OFFSET = "offset"
    CHECKSUM = "checksum"
    NO_UPLOAD = "no-upload"
    UNREADABLE = "unreadable"
    TOO_SLOW = "too-slow"
    BUSY = "busy"
    FAILED = "failed"


def uploads(job: str, upload: str, name: str | None = None) -> str:
    """Return the address of an upload, or of one of its files."""
    return f"/jobs/{job}/uploads/{upload}" + (f"/files/{name}" if name else "")


def checkpoints(job: str, step: int | None = None, name: str | None = None) -> str:
    """Return the address of a job's checkpoints, of one, or of one of its files."""
    address = f"/jobs/{job}/checkpoints"
    if step is not None:
        address += f"/{step}"
    return address + (f"/files/{name}" if name else "")


def lease(job: str) -> str:
    """Return the address of a job's lease."""
    return f"/jobs/{job}/lease"
