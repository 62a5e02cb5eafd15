"""The TCP store over TLS, with real certificates."""

import os
import shutil
import subprocess
import time

import pytest

from curitorch.external.stores import open_store
from curitorch.external.stores.store import StoreUnreachable
from curitorch.external.stores.testing.running_service import RunningService


class Certificate:
    """A certificate that `openssl` made, signed by itself or by `authority`."""

    def __init__(self, folder, name, *, names="IP:127.0.0.1", authority=None):
        self.key, self.path = folder / f"{name}.key", folder / f"{name}.pem"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"]
        command += ["-pkeyopt", "ec_paramgen_curve:P-256", "-subj", f"/CN={name}"]
        command += ["-addext", f"subjectAltName={names}", "-keyout", self.key, "-out", self.path]
        if authority is not None:
            command += ["-CA", authority.path, "-CAkey", authority.key]
            command += ["-addext", "basicConstraints=critical,CA:FALSE"]
        subprocess.run(command, check=True, capture_output=True)

    @property
    def options(self):
        return ("--tls-cert", str(self.path), "--tls-key", str(self.key))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not here to make a certificate")
    folder = tmp_path_factory.mktemp("certificates")
    return lambda name, **options: Certificate(folder, name, **options)


@pytest.fixture(scope="module")
def service(certificate, tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    options = certificate("own").options
    with RunningService(folder, *options, "--idle-seconds", "0.4") as service:
        service.certificate = folder / "own.pem"
        shutil.copy(options[1], service.certificate)
        yield service


def source(tmp_path, size=3_000_000):
    path = tmp_path / "a model"
    path.write_bytes(os.urandom(size))
    return path


def test_a_checkpoint_goes_round_and_connections_are_opened_again(service, tmp_path):
    model = source(tmp_path)
    assert service.address.startswith("https://")
    kind, line = service.recipe("round")
    with (
        open_store(kind, f'{line},tls_ca="{service.certificate}"') as store,
        store.lease("node-a") as lease,
    ):
        put = store.put(1, {"model.ckpt": model}, lease=lease)
        assert store.newest_valid() == put
        fetched = store.fetch(put, "model.ckpt", tmp_path / "here")
        assert fetched.read_bytes() == model.read_bytes()
        time.sleep(0.7)  # the service closes the idle connection
        assert store.list() == [put]


def test_the_authority_of_a_certificate_is_trusted_or_the_certificate_itself(certificate, tmp_path):
    authority = certificate("authority")
    signed = certificate("signed", authority=authority)
    with RunningService(tmp_path, *signed.options) as service:
        for trusted in (authority, signed):
            with service.store(tls_ca=trusted.path) as store:
                assert store.list() == []


@pytest.mark.parametrize(
    ("whose", "reason"),
    [("another's", "self.signed certificate"), ("the system's", "self.signed certificate")],
)
def test_a_certificate_that_cannot_be_trusted_is_one_sentence_at_once(
    service, certificate, tmp_path, whose, reason
):
    trusted = {"tls_ca": certificate("another").path} if whose == "another's" else {"tls": True}
    with service.store("untrusted", tries=3, **trusted) as store:
        for call in (
            store.list,
            lambda: store.put(1, {"m": source(tmp_path, 10)}),
            lambda: store.lease("node-a").__enter__(),
        ):
            with pytest.raises(
                StoreUnreachable, match=rf"cannot be trusted \({reason}\).*tls_ca=FILE"
            ) as raised:
                call()
            assert "\n" not in str(raised.value)
            assert "tries" not in str(raised.value)  # once was enough
    with service.store("untrusted", tls_ca=service.certificate) as store:
        assert store.list() == []


def test_a_certificate_for_another_name_is_one_sentence(certificate, tmp_path):
    elsewhere = certificate("elsewhere", names="DNS:elsewhere.example")
    with (
        RunningService(tmp_path, *elsewhere.options) as service,
        service.store(tls_ca=elsewhere.path) as store,
        pytest.raises(StoreUnreachable, match=r"not valid for '127\.0\.0\.1'.*it names"),
    ):
        store.list()


def test_without_tls_nothing_is_answered_and_the_other_way_round(service, tmp_path):
    with service.store(tries=1) as store, pytest.raises(StoreUnreachable, match="did not answer"):
        store.list()
    with (
        RunningService(tmp_path) as plain,
        plain.store(tries=1, tls=True) as store,
        pytest.raises(StoreUnreachable, match=r"did not answer \(SSL"),
    ):
        store.list()


def test_what_is_no_certificate_is_refused_at_the_start(tmp_path):
    (tmp_path / "no.pem").write_text("no certificate")
    for path, error, says in [
        (tmp_path / "no.pem", ValueError, r"no\.pem' holds no certificate.*BEGIN CERTIFICATE"),
        (tmp_path / "nowhere.pem", FileNotFoundError, "nowhere"),
    ]:
        with pytest.raises(error, match=says):
            open_store(
                "tcp", {"job_id": "a", "endpoint": "h", "port": 1, "token": "x", "tls_ca": path}
            )
