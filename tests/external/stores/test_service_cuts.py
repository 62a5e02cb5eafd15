"""The TCP store's service: slow, many and cut connections."""

import contextlib
import os
import random
import socket
import threading
import time

import pytest

from curitorch.external.stores.store import (
    StoreUnreachable,
)
from curitorch.external.stores.testing.running_service import RunningService
from tests.external.stores.service_proxy import Proxy, behind
from tests.external.stores.service_requests import (
    FILE,
    UPLOAD,
    begin,
    give_up,
    head,
    metrics,
    model,
    raw,
    sentence,
    tree,
)


def test_a_body_that_drips_is_refused(shared):
    assert begin(shared, 10**6)[0] == 201
    with socket.create_connection(("127.0.0.1", shared.port), timeout=10) as connection:
        connection.sendall(head("PUT", FILE, length=10**6))
        started, answer = time.monotonic(), b""
        connection.settimeout(0.1)
        while b"\r\n\r\n" not in answer and time.monotonic() - started < 8:
            with contextlib.suppress(TimeoutError, ConnectionError):
                connection.sendall(b"x")
                answer += connection.recv(65536)
    assert b" 408 " in answer.splitlines()[0]
    assert "per second" in sentence(answer)
    assert time.monotonic() - started < 5
    give_up(shared)


@pytest.mark.parametrize("drips", [b"", b"GET /health HTTP/1.1\r\nX-A: ", b"PUT"])
def test_a_header_that_drips_or_never_comes_is_cut_off(shared, drips):
    with socket.create_connection(("127.0.0.1", shared.port), timeout=0.1) as connection:
        started = time.monotonic()
        connection.sendall(drips)
        while time.monotonic() - started < 8:
            try:
                if drips:
                    connection.sendall(b"x")
                if connection.recv(100) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
    assert time.monotonic() - started < 5


def test_json_that_drips_is_refused(shared):
    request = head("PUT", f"/jobs/job/uploads/{UPLOAD}", length=100) + b'{"step'
    answer = raw(shared, request, seconds=10)
    assert b" 408 " in answer.splitlines()[0]


def test_too_many_connections_are_turned_away_and_the_others_go_on(tmp_path):
    with RunningService(tmp_path, "--connections", "4") as service:
        store = service.store(tries=1)
        assert store.list() == []
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                connection = socket.create_connection(("127.0.0.1", service.port), timeout=5)
                stack.enter_context(connection)
            time.sleep(0.2)
            answer = raw(service, b"")
            assert b" 503 " in answer.splitlines()[0]
            assert "most" in sentence(answer)
            assert store.list() == []  # on the connection that it has
        time.sleep(0.2)
        assert metrics(service)["turned_away_total"] == 1
        store.close()


def test_an_upload_that_is_cut_goes_on_where_it_was_cut(tmp_path):
    size = 12_000_000
    files = model(tmp_path, os.urandom(size))
    with RunningService(tmp_path) as service:
        cuts = [4_000_000, 6_000_000, 1000, 300]
        with Proxy(service.port, cuts) as proxy, behind(proxy, service) as store:
            put = store.put(1, files)
            assert proxy.cuts == []
            assert size < proxy.passed < 1.5 * size
            assert store.newest_valid() == put


def test_a_download_that_is_cut_goes_on_where_it_was_cut(tmp_path):
    files = model(tmp_path, os.urandom(12_000_000))
    with RunningService(tmp_path) as service, Proxy(service.port, []) as proxy:
        with behind(proxy, service) as store:
            put = store.put(1, files)
            proxy.back_cut = 5_000_000
            fetched = store.fetch(put, "model.ckpt", tmp_path / "here")
            assert proxy.back_cut is None
            assert fetched.read_bytes() == files["model.ckpt"].read_bytes()
            assert list((tmp_path / "here").iterdir()) == [fetched]
        sent = metrics(service)["sent_bytes_total"]
        assert 12_000_000 < sent < 24_000_000


def test_kill_9_of_the_service_in_the_middle_of_an_upload_costs_what_was_on_the_way(tmp_path):
    size = 12_000_000
    files = model(tmp_path, os.urandom(size))
    with RunningService(tmp_path) as service:

        def restart():
            service.kill()
            service.start()

        with Proxy(service.port, [6_000_000], restart) as proxy:
            with behind(proxy, service, tries=10) as store, store.lease("node-a") as lease:
                put = store.put(1, files, lease=lease)
                assert store.newest_valid() == put
            assert proxy.passed < 1.6 * size
        assert sorted(tree(service.root / "job" / "uploads")) == []


def test_a_service_that_is_away_is_waited_for_up_to_a_limit(tmp_path):
    with RunningService(tmp_path) as service:
        store = service.store(tries=20)
        store.put(1, model(tmp_path))
        service.kill()
        with service.store(tries=2) as impatient:
            started = time.monotonic()
            with pytest.raises(StoreUnreachable, match=r"127\.0\.0\.1.*2 tries.*start the service"):
                impatient.put(2, model(tmp_path))
            assert time.monotonic() - started < 3
        later = threading.Timer(0.5, service.start)
        later.start()
        put = store.put(2, model(tmp_path))
        later.join()
        assert store.newest_valid() == put
        store.close()


@pytest.mark.slow
def test_kill_9_of_the_service_at_100_random_moments_loses_nothing_durable(tmp_path):
    files = model(tmp_path, os.urandom(2_000_000))
    moments = random.Random(100)
    with RunningService(tmp_path) as service:

        def kill_and_start():
            for _ in range(100):
                time.sleep(moments.uniform(0.0, 0.2))
                service.kill()
                service.start()

        killing = threading.Thread(target=kill_and_start)
        killing.start()
        step = 0
        with service.store(tries=100) as store:
            while killing.is_alive():
                step += 1
                put = store.put(step, files)
                assert store.newest_valid() == put
                if step > 2:
                    store.delete(step - 2)
        service.kill()
        service.start()
        assert {name for name in os.listdir(service.root / "job") if name.startswith("step")} == {
            name.format(number)
            for number in (step - 1, step)
            for name in ("step-{:08d}", "step-{:08d}.json")
        }
        assert list((service.root / "job" / "uploads").iterdir()) == []
