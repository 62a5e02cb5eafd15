import subprocess
import sys
from pathlib import Path

import pytest

from curitorch.external import stores
from curitorch.external.stores import LocalStore, SpoolingStore, Store, TcpStore, open_store
from curitorch.external.stores.settings import BadSettings
from curitorch.external.stores.spool.spooling_store import SpoolFull
from curitorch.external.stores.store import StoreError


class Recording(Store):
    """A user's own store, which says what it was opened with."""

    def __init__(
        self,
        job_id: str,
        endpoint: str = "127.0.0.1",
        port: int = 0,
        seconds: float | None = None,
        fast: bool = False,
        token_file: Path | None = None,
    ):
        self.given = (job_id, endpoint, port, seconds, fast, token_file)

    put = list = fetch = verify = delete = lease = close = lambda self: None


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The kind of a store in a user's module."""
    (tmp_path / "my_stores.py").write_text("from my_tests import Recording\nnot_a_store = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "my_tests", sys.modules[__name__])
    yield "my_stores:Recording"
    sys.modules.pop("my_stores", None)


def test_a_local_store_is_opened_by_a_line_or_a_mapping(tmp_path):
    for settings in (f'root="{tmp_path}/a,b"', {"root": tmp_path / "a,b"}):
        with open_store("local", settings) as store:
            assert isinstance(store, LocalStore)
            assert store.root == tmp_path / "a,b"


def test_a_service_is_named_as_of_old_and_not_called_before_it_is_needed():
    line = "job_id=a,ckpt_service_endpoint=127.0.0.1,ckpt_service_port=1,token=secret"
    with open_store("tcp", line) as store:
        assert isinstance(store, TcpStore)


def test_words_become_what_the_class_takes(own):
    line = "job_id=7,endpoint=10.0.0.5,port=8731,seconds=2.5,fast=true,token_file=/run/token"
    store = open_store(own, line)
    assert store.given == ("7", "10.0.0.5", 8731, 2.5, True, Path("/run/token"))
    assert open_store(own, {"job_id": "7", "port": 8731}).given[2] == 8731


def test_the_names_of_old_are_understood(own):
    line = "job_id=a,ckpt_service_endpoint=10.0.0.5,ckpt_service_port=8731"
    assert open_store(own, line).given[:3] == ("a", "10.0.0.5", 8731)


@pytest.mark.parametrize(
    ("kind", "line", "sentence"),
    [
        ("disk", "root=/x", "no 'disk' store. Use one of local, tcp, remote, s3"),
        ("", "", "no '' store"),
        ("local", "root=/x,spool=/y", "A spool needs .* spool=/y and spool_bytes=. Write both"),
        ("local", "root=/x,spool_bytes=5", "A spool needs .* spool= and spool_bytes=5"),
        ("local", "root=/x,spool=,spool_bytes=5", "A spool needs a folder"),
        ("local", "root=/x,spool=/y,spool_bytes=much", "spool_bytes: 'much' is not a number of b"),
        ("local", "", "needs 'root', which is not among its settings .there are none."),
        ("local", "roots=/x", "no setting 'roots'. Its settings: root"),
        ("local", "root", "'root' where a key=value is expected"),
        ("tcp", "job_id=a", "needs 'endpoint', which is not among its settings .job_id."),
        ("remote", "job_id=a,ckpt_service_port=x", "'ckpt_service_port' is 'x', expected int"),
        ("s3", "root=s3://bucket/job/,keep=3", "no setting 'keep'. Its settings: root, "),
        ("my_stores:Recording", "job_id=a,port=http", "'port' is 'http', expected int"),
        ("my_stores:Recording", "job_id=a,seconds=long", "'seconds' is 'long', expected float"),
        ("my_stores:Recording", "job_id=a,fast=maybe", "'fast' is 'maybe', expected bool"),
        ("my_stores:Recording", "job_id=a,port=1,ckpt_service_port=2", "'port' is given twice"),
        ("my_stores:Recording", "port=1", "needs 'job_id', .* among its settings .port"),
        ("my_stores:not_a_store", "", "not a subclass of Store"),
        ("my_stores:Missing", "", "has no 'Missing'"),
        ("no_such_module:Store", "", "no module 'no_such_module'"),
    ],
)
def test_what_cannot_be_opened_is_one_sentence(own, kind, line, sentence):
    with pytest.raises(BadSettings, match=sentence):
        open_store(kind, line)


def test_every_exported_name_can_be_imported_and_no_other():
    for name in stores.__all__:
        assert getattr(stores, name).__name__ == name
    assert set(stores.__all__) <= set(dir(stores))
    with pytest.raises(AttributeError, match="Nonsense"):
        _ = stores.Nonsense


def test_a_local_store_needs_no_torch_and_no_optional_dependency(tmp_path):
    code = (
        "import sys\nfrom curitorch.external.stores import open_store, Store\n"
        f"open_store('local', {{'root': {str(tmp_path)!r}}})\n"
        "print({'torch', 'lightning', 'boto3', 'aiohttp', 'curifactory'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_any_kind_is_put_into_through_a_spool(own, tmp_path):
    line = f'root={tmp_path}/kept,spool="{tmp_path}/a spool",spool_bytes=1kB'
    with open_store("local", line) as store:
        assert isinstance(store, SpoolingStore)
        assert store.folder == tmp_path / "a spool"
        (tmp_path / "m").write_bytes(bytes(1000))
        put = store.put(1, {"m": tmp_path / "m"})
        assert store.flush(100)
        (tmp_path / "m").write_bytes(bytes(1001))
        with pytest.raises(SpoolFull, match="1000 is the limit"):
            store.put(2, {"m": tmp_path / "m"})
    with open_store("local", {"root": tmp_path / "kept"}) as kept:
        assert kept.list() == [put]


def test_a_store_whose_spool_is_in_use_is_closed_again(own, tmp_path, monkeypatch):
    closed = []
    monkeypatch.setattr(Recording, "close", lambda store: closed.append(store))
    line = f"job_id=a,spool={tmp_path}/spool,spool_bytes=1000"
    with (
        SpoolingStore(LocalStore(tmp_path), tmp_path / "spool", limit_bytes=1),
        pytest.raises(StoreError, match="its own folder"),
    ):
        open_store(own, line)
    assert len(closed) == 1
