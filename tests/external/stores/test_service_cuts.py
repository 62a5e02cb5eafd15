"""The TCP store's service: slow, many and cut connections."""

import contextlib
import os
import random
import signal
import socket
import threading
import time

import pytest

from curitorch.external.stores.store import (
    StoreUnreachable,
)
from curitorch.external.stores.tcp.patience import Patience
from curitorch.external.stores.testing.running_service import RunningService
from tests.external.stores.service_proxy import Proxy, behind
from tests.external.stores.service_requests import (
    FILE,
    UPLOAD,
    answer_on,
    begin,
    give_up,
    head,
    metrics,
    model,
    raw,
    sentence,
    tree,
)

LONG = 60.0  # seconds in which even a machine that stands still for a while gets it done


@pytest.fixture(scope="module")
def hasty(tmp_path_factory):
    """A service with no patience, for clients that are slow on purpose."""
    folder = tmp_path_factory.mktemp("service")
    with RunningService(folder, "--body-seconds", "0.5", "--idle-seconds", "0.5") as service:
        yield service


def drip(connection, drips):
    """Send bytes slowly until there is an answer, or an end; returns whether that came."""
    end = time.monotonic() + LONG
    while time.monotonic() < end:
        connection.settimeout(LONG)
        with contextlib.suppress(ConnectionError):
            connection.sendall(drips)
        connection.settimeout(0.1)
        try:
            connection.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            continue
        except ConnectionError:
            pass
        connection.settimeout(LONG)
        return True
    return False


def test_a_body_that_drips_is_refused(hasty):
    assert begin(hasty, 10**6)[0] == 201
    with socket.create_connection(("127.0.0.1", hasty.port), timeout=LONG) as connection:
        connection.sendall(head("PUT", FILE, length=10**6))
        assert drip(connection, b"x")
        answer = answer_on(connection)
    assert b" 408 " in answer.splitlines()[0]
    assert "per second" in sentence(answer)
    give_up(hasty)


@pytest.mark.parametrize("begun", [b"", b"GET /health HTTP/1.1\r\nX-A: ", b"PUT"])
def test_a_header_that_drips_or_never_comes_is_cut_off(hasty, begun):
    with socket.create_connection(("127.0.0.1", hasty.port), timeout=LONG) as connection:
        connection.sendall(begun)
        assert drip(connection, b"x" if begun else b"")
        with contextlib.suppress(ConnectionError):
            while connection.recv(100):
                pass


def test_json_that_drips_is_refused(hasty):
    request = head("PUT", f"/jobs/job/uploads/{UPLOAD}", length=100) + b'{"step'
    answer = raw(hasty, request)
    assert b" 408 " in answer.splitlines()[0]


def connections(stack, service, count):
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", service.port), timeout=LONG)
        yield stack.enter_context(connection)


def test_too_many_connections_are_turned_away_and_the_others_go_on(tmp_path):
    with (
        RunningService(tmp_path, "--connections", "4", "--idle-seconds", "300") as service,
        contextlib.ExitStack() as stack,
    ):
        store = stack.enter_context(service.store(tries=1))
        assert store.list() == []
        *_, last = connections(stack, service, 3)
        answer = raw(service, b"")
        assert b" 503 " in answer.splitlines()[0]
        assert "most" in sentence(answer)
        assert store.list() == []  # on the connection that it has
        last.sendall(head("GET", "/metrics"))
        assert b"turned_away_total 1" in answer_on(last)


def test_those_that_come_in_one_moment_are_not_more_either(tmp_path):
    with (
        RunningService(tmp_path, "--connections", "4", "--idle-seconds", "300") as service,
        contextlib.ExitStack() as stack,
    ):
        os.kill(service.pid, signal.SIGSTOP)
        all_of_them = list(connections(stack, service, 9))
        os.kill(service.pid, signal.SIGCONT)
        for connection in all_of_them[:4]:
            connection.sendall(head("GET", "/health"))
        answers = [answer_on(connection).split()[1] for connection in all_of_them]
        assert answers == [b"200"] * 4 + [b"503"] * 5


def test_an_upload_that_is_cut_goes_on_where_it_was_cut(tmp_path):
    size = 12_000_000
    files = model(tmp_path, os.urandom(size))
    with RunningService(tmp_path) as service:

        def wait_for_what_passed():  # but for the heads of requests
            def arrived():
                return sum(p.stat().st_size for p in service.root.glob("job/uploads/*/files/*"))

            end = time.monotonic() + LONG
            while arrived() < proxy.passed - 10_000 and time.monotonic() < end:
                time.sleep(0.01)

        cuts = [4_000_000, 6_000_000, 1000, 300]
        with (
            Proxy(service.port, cuts, wait_for_what_passed) as proxy,
            behind(proxy, service) as store,
        ):
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
            with (
                behind(proxy, service, tries=1000) as store,
                store.lease("node-a") as lease,
            ):
                put = store.put(1, files, lease=lease)
                assert store.newest_valid() == put
            assert proxy.passed < 1.6 * size
        assert sorted(tree(service.root / "job" / "uploads")) == []


def test_a_service_that_is_away_is_waited_for_up_to_a_limit(tmp_path):
    with RunningService(tmp_path) as service:
        store = service.store(tries=1000)
        store.put(1, model(tmp_path))
        service.kill()
        with (
            service.store(tries=2) as impatient,
            pytest.raises(StoreUnreachable, match=r"127\.0\.0\.1.*2 tries.*start the service"),
        ):
            impatient.put(2, model(tmp_path))
        later = threading.Timer(0.5, service.start)
        later.start()
        put = store.put(2, model(tmp_path))
        later.join()
        assert store.newest_valid() == put
        store.close()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kill_9_of_the_service_at_100_random_moments_loses_nothing_durable(tmp_path, monkeypatch):
    monkeypatch.setattr(Patience, "pause", lambda patience, failures: time.sleep(0.05))
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
        with service.store(tries=10**6) as store:
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
            for number in range(max(1, step - 1), step + 1)
            for name in ("step-{:08d}", "step-{:08d}.json")
        }
        assert list((service.root / "job" / "uploads").iterdir()) == []
