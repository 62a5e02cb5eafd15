"""A TCP proxy for tests that cuts connections: a network that fails in the middle."""

import contextlib
import socket
import threading
from collections.abc import Iterator


class CuttingProxy:
    """Passes bytes on to `port` of this machine; `cut` says which connections end early.

    Attributes:
        port: Where it listens.
        cuts: How many connections it has cut.
    """

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cuts = 0
        self._rule = (b"", 0, 0)
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, *, request: bytes, times: int, after: int = 0) -> None:
        """Cut `times` connections when a request has `request` in it.

        Args:
            request: A part of the head, e.g. `b"PUT /bucket/"`; the request itself arrives.
            times: How many.
            after: Bytes of the answer that come back before.
        """
        with self._lock:
            self._rule = (request, times, after)

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._upstream))
                threading.Thread(target=self._serve, args=(client, server), daemon=True).start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        """Pass on what comes from either end; closed when nobody uses the descriptors any more."""
        left: list[int] = []  # bytes of answers until the cut, if there is to be one
        with client, server:
            back = threading.Thread(target=self._pass_on, args=(server, client, left, False))
            back.daemon = True
            back.start()
            self._pass_on(client, server, left, True)
            back.join()

    def _pass_on(
        self, source: socket.socket, target: socket.socket, left: list[int], judge: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if judge:
                    self._judge(data, left)
                elif left:
                    data = data[: left[0]]
                    left[0] -= len(data)
                target.sendall(data)
                if not judge and left and left[0] <= 0:
                    break
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _judge(self, data: bytes, left: list[int]) -> None:
        with self._lock:
            request, times, after = self._rule
            if times and request in data and not left:
                self._rule = (request, times - 1, after)
                self.cuts += 1
                left.append(after)


@contextlib.contextmanager
def cutting_proxy(port: int) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
