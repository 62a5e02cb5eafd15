"""Requests to a running service, as no client of ours would send them."""

import contextlib
import json
import re
import socket
from pathlib import Path

from curitorch.external.stores.testing.running_service import TOKEN, RunningService

UPLOAD = "a" * 32
FILE = f"/jobs/job/uploads/{UPLOAD}/files/model.ckpt"


def model(tmp_path: Path, content: bytes = b"hello") -> dict[str, Path]:
    path = tmp_path / "a model"
    path.write_bytes(content)
    return {"model.ckpt": path}


def begin(service: RunningService, size: int, job: str = "job", step: int = 1) -> tuple[int, dict]:
    body = json.dumps({"step": step, "files": {"model.ckpt": size}}).encode()
    status, answer = service.ask("PUT", f"/jobs/{job}/uploads/{UPLOAD}", body)
    return status, json.loads(answer)


def give_up(service: RunningService) -> None:
    service.ask("DELETE", f"/jobs/job/uploads/{UPLOAD}")


def raw(service: RunningService, data: bytes) -> bytes:
    """Send bytes as they are; returns what came of the answer before the connection ended."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        return answer_on(connection)


def answer_on(connection: socket.socket) -> bytes:
    got, wanted = b"", 1
    with contextlib.suppress(ConnectionError):
        while wanted > 0 and (piece := connection.recv(65536)):
            got += piece
            ending, _, body = got.partition(b"\r\n\r\n")
            if ending != got and not ending.startswith(b"HTTP/1.1 100"):
                said = re.search(rb"(?i)\r\ncontent-length: (\d+)", ending)
                wanted = int(said[1]) - len(body) if said else 1
    return got


def head(method: str, path: str, *more: str, length: int = 0, token: str = TOKEN) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {token}"]
    lines += [f"Content-Length: {length}", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def sentence(answer: bytes) -> str:
    record = json.loads(answer.partition(b"\r\n\r\n")[2] or answer)
    assert record["kind"]
    return record["error"]


def metrics(service: RunningService) -> dict[str, float]:
    page = service.ask("GET", "/metrics")[1].decode()
    values = {}
    for line in page.splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            values[name.removeprefix("curitorch_store_")] = float(value)
    return values
