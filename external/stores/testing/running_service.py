"""The service of the TCP store in a process of its own, for tests.

with RunningService(tmp_path) as service, service.store("digits") as store:
    store.put(120, {"model.ckpt": path})
"""

import http.client
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from ..tcp import TcpStore
from .held_port import hold_port

TOKEN = "a token that only this test knows".replace(" ", "-")


class RunningService:
    """Keeps checkpoints in `folder/root` until it is stopped. A context.

    Args:
        folder: For the root, the token file and the log.
        options: Of the service's command line.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.root = folder / "root"
        self.token_file = folder / "token"
        self.log = folder / "service.log"
        self.options = options
        self.port = 0
        self.address = ""
        self.token_file.write_text(TOKEN + "\n")
        self._process: subprocess.Popen[str] | None = None
        self._kept: socket.socket | None = None

    def __enter__(self) -> Self:
        if sys.platform == "linux":
            self._kept = hold_port()
            self.port = self._kept.getsockname()[1]  # nobody's between an end and the next start
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()
        if self._kept is not None:
            self._kept.close()

    def start(self, *options: str) -> None:
        """Start it, on the port that it had before if it had one."""
        command = [sys.executable, "-m", "curitorch.external.stores.server"]
        command += ["--root", str(self.root), "--token-file", str(self.token_file)]
        command += ["--port", str(self.port), *self.options, *options]
        with self.log.open("a") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("Listening on "):
            raise RuntimeError(f"The service did not start: {self.log.read_text()}")
        self.address = line.split()[-1]
        self.port = urlsplit(self.address).port or 0

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """End it as `kill -9` does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None

    def terminate(self, *, wait: bool = True) -> int | None:
        """Send SIGTERM; returns the exit status if it is waited for."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGTERM)
        return self._process.wait(60) if wait else None

    def wait(self) -> int:
        """Wait for the end; returns the exit status."""
        assert self._process is not None
        return self._process.wait(60)

    def recipe(self, job: str = "job") -> tuple[str, str]:
        """Return what `open_store` opens."""
        return "tcp", (
            f"job_id={job},ckpt_service_endpoint=127.0.0.1,ckpt_service_port={self.port},"
            f'token_file="{self.token_file}"'
        )

    def store(self, job: str = "job", **options: Any) -> TcpStore:
        """Open a store of the service; it fails fast unless told otherwise."""
        options = {"token_file": self.token_file, "timeout": 60.0, "tries": 3, **options}
        return TcpStore(job, "127.0.0.1", self.port, **options)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        token: str | None = TOKEN,
        **headers: str,
    ) -> tuple[int, bytes]:
        """Send one request as it is; returns the status and the body.

        Args:
            method: Of HTTP.
            path: Sent as it is, without quoting.
            body: Of the request.
            token: None for a request without one.
            headers: With `_` for `-` in their names.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            if token is not None:
                connection.putheader("Authorization", f"Bearer {token}")
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders(body)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()
