"""The TCP store's service: starting, stopping and leases."""

import contextlib
import hashlib
import json
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from curitorch.external.stores.service.leases import JobLease
from curitorch.external.stores.service.refusal import Refusal
from curitorch.external.stores.store import (
    Lease,
    LeaseLost,
)
from curitorch.external.stores.testing.running_service import RunningService
from tests.external.stores.service_proxy import Proxy, behind
from tests.external.stores.service_requests import (
    FILE,
    UPLOAD,
    answer_on,
    begin,
    head,
    metrics,
    model,
    raw,
    tree,
)


def test_what_a_dead_service_left_half_done_is_gone_after_the_start(tmp_path):
    with RunningService(tmp_path) as service, service.store() as store:
        put = store.put(1, model(tmp_path))
        service.kill()
        job = service.root / "job"
        (job / "step-00000002").mkdir()  # killed between the files and the sidecar
        (job / "step-00000002" / "model.ckpt").write_text("x")
        (job / ".incomplete-77-abc.json").write_text("{")
        old = job / "uploads" / ("c" * 32) / "files"
        old.mkdir(parents=True)
        (old / "m").write_text("x")
        for path in (old / "m", old, old.parent):
            os.utime(path, (0, 0))
        service.start()
        assert store.newest_valid() == put
        assert tree(job) == {
            *("step-00000001", "step-00000001/model.ckpt", "step-00000001.json"),
            *("uploads", "changes"),
        }


LONG = 60.0  # seconds in which even a machine that stands still for a while gets it done
PATIENT = ("--body-seconds", "600")  # with clients that stop in the middle


def until(condition):
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)


@contextlib.contextmanager
def half_an_upload(service):
    """A connection on which half of a file has come, and is in its place."""
    assert begin(service, 1000)[0] == 201
    path = service.root / "job" / "uploads" / UPLOAD / "files" / "model.ckpt"
    with socket.create_connection(("127.0.0.1", service.port), timeout=LONG) as connection:
        connection.sendall(head("PUT", FILE, length=1000) + bytes(500))
        until(lambda: path.exists() and path.stat().st_size == 500)
        yield connection


def is_stopping(service):
    return service.ask("GET", "/health", token=None)[0] == 503


def test_sigterm_lets_an_upload_under_way_finish(tmp_path):
    with RunningService(tmp_path, *PATIENT, "--grace", "600") as service:
        with half_an_upload(service) as connection:
            service.terminate(wait=False)
            until(lambda: is_stopping(service))
            status, answer = begin(service, 1000, job="another")
            assert (status, "stopping" in answer["error"]) == (503, True)
            connection.sendall(bytes(500))
            assert b" 200 " in answer_on(connection).splitlines()[0]
        assert b" 201 " in raw(service, commit_of_zeros(1000)).splitlines()[0]
        assert service.wait() == 0
        service.start()
        with service.store() as store:
            assert [each.bytes for each in store.list()] == [1000]


def commit_of_zeros(size: int) -> bytes:
    checksum = "sha256:" + hashlib.sha256(bytes(size)).hexdigest()
    files = {"model.ckpt": {"bytes": size, "checksum": checksum}}
    body = json.dumps({"schema": 2, "step": 1, "details": {}, "files": files}).encode()
    more = ("If-None-Match: *", f"Upload-Id: {UPLOAD}")
    return head("PUT", "/jobs/job/checkpoints/1", *more, length=len(body)) + body


def test_sigterm_waits_no_longer_than_it_was_told(tmp_path):
    with RunningService(tmp_path, *PATIENT, "--grace", "0.5") as service:
        with half_an_upload(service):
            started = time.monotonic()
            assert service.terminate() == 0  # which it would not without a limit
            assert time.monotonic() - started > 0.4
        service.start()
        assert service.ask("HEAD", FILE)[0] == 200
        size = (service.root / "job" / "uploads" / UPLOAD / "files" / "model.ckpt").stat().st_size
        assert size == 500  # to go on from there


def test_a_second_sigterm_ends_it_at_once(tmp_path):
    with (
        RunningService(tmp_path, *PATIENT, "--grace", "600") as service,
        half_an_upload(service),
    ):
        service.terminate(wait=False)
        until(lambda: is_stopping(service))
        os.kill(service.pid, signal.SIGTERM)
        service.wait()


def asked_for_leases(service, method, status):
    """How often the service has answered so to what was asked about leases, or uploads."""
    return metrics(service).get(f'requests_total{{method="{method}",status="{status}"}}', 0)


def restarted(service, lease_seconds):
    service.kill()
    service.start("--lease-seconds", lease_seconds)


def test_a_lease_that_ran_out_is_free_and_its_writer_is_locked_out(tmp_path):
    with (
        RunningService(tmp_path, "--lease-seconds", "600") as service,
        service.store(tries=9) as store,
    ):
        path, body = "/jobs/job/lease", b'{"holder": "node-a", "nonce": "1"}'
        status, answer = service.ask("POST", path, body)
        old = Lease("node-a", json.loads(answer)["token"])
        assert (status, service.ask("POST", path, body)[1]) == (201, answer)  # asked again
        other = b'{"holder": "node-b", "nonce": "2"}'
        assert service.ask("POST", path, other)[0] == 409
        store.put(1, model(tmp_path), lease=old)
        restarted(service, "0.4")
        time.sleep(0.5)
        assert service.ask("PUT", path, Fencing_Token=str(old.token))[0] == 200  # nobody took it
        time.sleep(0.5)
        with store.lease("node-b") as new:
            assert new.token > old.token
            with pytest.raises(LeaseLost):
                store.put(2, model(tmp_path), lease=old)
            with pytest.raises(LeaseLost):
                store.delete(1, lease=old)
            assert service.ask("PUT", path, Fencing_Token=str(old.token))[0] == 409
            renewed = asked_for_leases(service, "PUT", 200)
            until(lambda: asked_for_leases(service, "PUT", 200) >= renewed + 2)
            store.put(2, model(tmp_path), lease=new)
        assert [each.step for each in store.list()] == [1, 2]


def test_the_lease_of_a_dead_holder_is_waited_for_and_that_of_a_living_one_is_not(tmp_path):
    with (
        RunningService(tmp_path, "--lease-seconds", "600") as service,
        service.store(tries=1000) as store,
        service.store() as another,
        ThreadPoolExecutor(1) as beside,
    ):
        service.ask("POST", "/jobs/job/lease", b'{"holder": "dead", "nonce": "1"}')

        def let_it_run_out():
            until(lambda: asked_for_leases(service, "POST", 409) >= 1)
            restarted(service, "1")

        ran_out = beside.submit(let_it_run_out)
        with (
            pytest.warns(UserWarning, match="whether the holder lives: 'dead' holds the lease"),
            store.lease("node-b"),
        ):
            ran_out.result()
            restarted(service, "600")
            with (
                pytest.warns(UserWarning, match="'node-b' holds the lease"),
                pytest.raises(LeaseLost, match="'node-b' holds the lease"),
                another.lease("node-c"),
            ):
                pass


def test_an_upload_that_was_overtaken_on_the_way_is_not_committed(tmp_path):
    files = model(tmp_path, os.urandom(2_000_000))
    with RunningService(tmp_path, "--lease-seconds", "0.3") as service:
        lease = json.loads(
            service.ask("POST", "/jobs/job/lease", b'{"holder": "node-a", "nonce": "1"}')[1]
        )
        taken = []

        def overtake():
            time.sleep(0.4)
            body = b'{"holder": "node-b", "nonce": "2"}'
            taken.append(service.ask("POST", "/jobs/job/lease", body)[0])

        with (
            Proxy(service.port, [1_000_000], overtake) as proxy,
            behind(proxy, service, tries=8) as store,
        ):
            with pytest.raises(LeaseLost, match="node-b"):
                store.put(1, files, lease=Lease("node-a", lease["token"]))
            assert taken == [201]
            assert store.list() == []


def test_leases_outlive_the_service(tmp_path):
    with RunningService(tmp_path, "--lease-seconds", "2") as service, service.store() as store:
        with store.lease("node-a") as lease:
            restarted(service, "600")  # from now on no standstill ends it
            with pytest.raises(LeaseLost, match="node-a"), store.lease("node-b"):
                pass
            store.put(1, model(tmp_path), lease=lease)
        with store.lease("node-b") as newer:
            assert newer.token == lease.token + 1


def test_no_wall_clock_decides_about_a_lease(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: 0.0)
    lease = JobLease(tmp_path, seconds=10, clock=lambda: now[0])
    first = lease.acquire("a", "1")
    now[0] += 9.9
    with pytest.raises(Refusal, match="'a' holds"):
        lease.acquire("b", "2")
    now[0] += 0.2
    assert lease.acquire("b", "2").token == first.token + 1
    with pytest.raises(Refusal):
        lease.renew(first.token)
    lease.release(first.token)
    assert lease.is_held()
    lease.release(first.token + 1)
    assert lease.acquire("c", "3").token == first.token + 2
