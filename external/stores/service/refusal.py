"""A refusal: what the service answers to a request that it does not carry out."""

from ..tcp.wire import Kind

STATUS = {
    Kind.UNAUTHORIZED: 401,
    Kind.BAD_REQUEST: 400,
    Kind.NOT_FOUND: 404,
    Kind.TOO_LARGE: 413,
    Kind.QUOTA: 507,
    Kind.DISK_FULL: 507,
    Kind.EXISTS: 412,  # of If-None-Match: *
    Kind.LEASE: 409,
    Kind.OFFSET: 409,
    Kind.CHECKSUM: 422,
    Kind.NO_UPLOAD: 404,
    Kind.UNREADABLE: 410,
    Kind.TOO_SLOW: 408,
    Kind.BUSY: 503,
    Kind.FAILED: 500,
}


class Refusal(Exception):
    """The request was not carried out; `sentence` says what to do.

    Attributes:
        kind: For the client program.
        sentence: For its user.
        status: The HTTP status; the kind's own unless HTTP has a better one.
        more: Further entries of the JSON answer.
    """

    def __init__(
        self, kind: Kind, sentence: str, *, status: int | None = None, **more: object
    ) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.sentence = sentence
        self.status = STATUS[kind] if status is None else status
        self.more = more

    def record(self) -> dict[str, object]:
        """Return the answer's JSON object."""
        return {"error": self.sentence, "kind": self.kind.value, **self.more}
