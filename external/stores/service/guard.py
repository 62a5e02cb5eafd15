"""What every request goes through: the token, and a sentence for whatever goes wrong."""

import errno
import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from ...schema import UnreadableFile
from ..tcp.wire import Kind
from .metrics import Metrics
from .refusal import Refusal
from .tokens import TokenFile

MOST_JSON = 4 << 20
_METHODS = {"GET", "HEAD", "PUT", "POST", "DELETE"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_log = logging.getLogger("curitorch.stores.service")


class Guard:
    """Stands before all handlers.

    Args:
        tokens: Who may come in.
        metrics: Counts requests and refusals.
        seconds: Within which a small body has to come; for the message.
        closing: Says whether connections are closed after the answer.
    """

    def __init__(
        self, tokens: TokenFile, metrics: Metrics, seconds: float, closing: Callable[[], bool]
    ) -> None:
        self.active = 0
        """Requests that are being answered."""
        self._tokens, self._metrics, self._seconds = tokens, metrics, seconds
        self._closing = closing

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check the token, and turn whatever goes wrong into a status and a sentence."""
        self.active += 1
        try:
            response = await self._answer(request, handler)
        finally:
            self.active -= 1
        method = request.method if request.method in _METHODS else "other"
        self._metrics.add("requests_total", method=method, status=str(response.status))
        response.headers["Cache-Control"] = "no-store"
        if self._closing():
            response.force_close()
        return response

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._authorize(request)
            return await handler(request)
        except Refusal as refusal:
            return self._refuse(request, refusal)
        except web.HTTPException as error:
            sentence = {
                404: f"There is nothing at {request.path[:200]!r}. See wire.py for addresses.",
                405: f"{request.method[:20]!r} cannot be done here. See wire.py for methods.",
                413: f"The JSON body is larger than {MOST_JSON} bytes. Make 'details' smaller.",
            }.get(error.status, error.reason)
            kind = {404: Kind.NOT_FOUND, 413: Kind.TOO_LARGE}.get(error.status, Kind.BAD_REQUEST)
            return self._refuse(request, Refusal(kind, sentence, status=error.status))
        except UnreadableFile as error:
            return self._refuse(request, Refusal(Kind.UNREADABLE, str(error)))
        except TimeoutError:
            sentence = f"The body did not come in {self._seconds:g} s. Send it faster."
            return self._refuse(request, Refusal(Kind.TOO_SLOW, sentence))
        except ConnectionError:
            raise  # the client went away: there is nobody to answer
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                sentence = "The service's disk is full. Delete old checkpoints or keep fewer."
                return self._refuse(request, Refusal(Kind.DISK_FULL, sentence, errno=errno.ENOSPC))
            return self._failed(request, error)
        except Exception as error:
            return self._failed(request, error)

    def _authorize(self, request: web.Request) -> None:
        if request.path == "/health":
            return
        self._tokens.check(request.headers.get("Authorization"), job=request.match_info.get("job"))
        if "Content-Encoding" in request.headers:
            sentence = "Encoded bodies are not taken. Send the bytes as they are."
            raise Refusal(Kind.BAD_REQUEST, sentence, status=415)

    def _refuse(self, request: web.Request, refusal: Refusal) -> web.Response:
        self._metrics.add("refusals_total", kind=refusal.kind.value)
        response = web.json_response(refusal.record(), status=refusal.status)
        if refusal.status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        if refusal.status == 503:
            response.headers["Retry-After"] = "1"
        if request.body_exists and not request.content.is_eof():
            response.force_close()  # the rest of the body is not wanted
        return response

    def _failed(self, request: web.Request, error: Exception) -> web.Response:
        _log.error("%s %r failed", request.method, request.path, exc_info=error)
        sentence = f"The service failed ({type(error).__name__}). Its log says more."
        return self._refuse(request, Refusal(Kind.FAILED, sentence))

    async def expect(self, request: web.Request) -> web.StreamResponse | None:
        """Refuse before the body is sent."""
        try:
            self._authorize(request)
        except Refusal as refusal:
            return self._refuse(request, refusal)
        if request.headers["Expect"].lower() != "100-continue":
            sentence = "The only expectation that is met is 100-continue."
            return self._refuse(request, Refusal(Kind.BAD_REQUEST, sentence, status=417))
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
        return None
