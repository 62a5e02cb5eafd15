"""A proxy before a service, which cuts connections."""

import contextlib
import socket
import threading

from curitorch.external.stores.tcp import TcpStore
from curitorch.external.stores.testing.running_service import RunningService


class Proxy:
    """Passes bytes on; after each of `cuts` bytes from a client it calls `then` and cuts."""

    def __init__(self, port: int, cuts: list[int], then=lambda: None) -> None:
        self.target, self.cuts, self.then = port, list(cuts), then
        self.passed = 0
        self.back_cut: int | None = None
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._listening.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self.target))
                except OSError:
                    client.close()
                    continue
                threading.Thread(target=self._pass_on, args=(client, server), daemon=True).start()

    def _pass_on(self, client, server):
        with client, server:
            down = threading.Thread(target=self._down, args=(client, server), daemon=True)
            down.start()
            self._up(client, server)
            down.join()

    def _up(self, client, server):
        here = 0
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if self.cuts and here + len(data) > self.cuts[0]:
                    last = data[: max(0, self.cuts.pop(0) - here)]
                    self.passed += len(last)
                    server.sendall(last)
                    self.then()
                    self._shut(client, server)
                    return
                here += len(data)
                self.passed += len(data)  # before an answer to it can come
                server.sendall(data)
        self._shut(client, server)

    def _down(self, client, server):
        here = 0
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                here += len(data)
                if self.back_cut is not None and here > self.back_cut:
                    self.back_cut = None
                    break
                client.sendall(data)
        self._shut(client, server)

    @staticmethod
    def _shut(*sockets):
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def behind(proxy: Proxy, service: RunningService, **options) -> TcpStore:
    options = {"token_file": service.token_file, "timeout": 60.0, "tries": 5, **options}
    return TcpStore("job", "127.0.0.1", proxy.port, **options)
