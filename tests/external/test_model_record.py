import json
import subprocess
import sys

import pytest

from curitorch.external.atomic import write_json
from curitorch.external.model_record import (
    check_model_file,
    describe_model,
    metadata_path,
    read_model_record,
    write_model_record,
)
from curitorch.external.schema import UnreadableFile
from curitorch.external.stores import LocalStore


class Outer:
    class Net:
        def __init__(self, **hparams):
            self.hparams = hparams


@pytest.fixture
def model_path(tmp_path):
    path = tmp_path / "a $b 'c' ü" / "model.ckpt"
    path.parent.mkdir()
    path.write_bytes(b"weights")
    return path


def test_a_record_names_the_class_also_when_it_is_nested():
    record = describe_model(Outer.Net(), step=3, epoch=1, world_size=2, commit="0f3c")

    assert record["type"] == "Net"
    assert record["qualname"] == "Outer.Net"
    assert record["module"] == __name__
    assert [record[key] for key in ("step", "epoch", "world_size", "commit")] == [3, 1, 2, "0f3c"]


@pytest.mark.parametrize(
    ("model", "arguments", "origin"),
    [
        (Outer.Net(hidden=3), None, "checkpoint"),
        (Outer.Net(hidden=3), {"hidden": 3}, "checkpoint"),
        (Outer.Net(), {"hidden": 3}, "arguments"),
        (Outer.Net(), {}, "none"),
        (object(), None, "none"),
    ],
)
def test_a_record_says_where_the_arguments_come_from(model, arguments, origin):
    assert describe_model(model, arguments=arguments)["hyperparameters"] == origin


def test_a_record_comes_back_as_it_was_written(model_path):
    written = write_model_record(
        model_path, describe_model(Outer.Net(), arguments={"ü": "3e-7", "n": [1, None, True]})
    )

    assert read_model_record(model_path) == written
    assert written["bytes"] == 7
    check_model_file(model_path, written, read=True)


def test_the_record_lies_where_curifactory_looks_for_metadata(model_path):
    from curitorch.params.curifactory_api import Cacheable

    for name in ("model.ckpt", "model", "a.ckpt.ckpt", "model.pt"):
        path = model_path.with_name(name)
        cacher = Cacheable(str(path), extension=".ckpt")
        assert str(metadata_path(path)) == cacher.get_path("_metadata.json")


def test_a_record_is_found_in_the_whole_metadata_that_curifactory_writes(model_path):
    record = describe_model(Outer.Net())
    write_json(metadata_path(model_path), {"artifact_name": "model", "extra": record})

    assert read_model_record(model_path) == record


def test_a_record_is_found_in_the_sidecar_of_a_checkpoint(tmp_path):
    (tmp_path / "weights").write_bytes(b"weights")
    record = describe_model(Outer.Net())
    store = LocalStore(tmp_path)
    store.put(120, {"model.ckpt": tmp_path / "weights"}, details={"model": record})

    path = tmp_path / "step-00000120" / "model.ckpt"
    found = read_model_record(path)
    assert found is not None
    assert found["qualname"] == "Outer.Net"
    assert found["bytes"] == 7

    (tmp_path / "step-00000120.json").write_text('{"schema": 1, "st')
    with pytest.raises(UnreadableFile, match="step-00000120"):
        read_model_record(path)


@pytest.mark.parametrize("content", [None, {}, [], {"extra": None}, {"extra": {"type": "Net"}}])
def test_a_model_without_a_record_of_ours_has_none(model_path, content):
    if content is not None:
        metadata_path(model_path).write_text(json.dumps(content))
    model_path.with_suffix(".json").write_text('{"somebody": "else"}')

    assert read_model_record(model_path) is None


@pytest.mark.parametrize("keep", [0, 1, 40, -3])
def test_a_torn_record_is_refused(model_path, keep):
    write_model_record(model_path, describe_model(Outer.Net()))
    path = metadata_path(model_path)
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(UnreadableFile, match="model_metadata"):
        read_model_record(model_path)


def test_a_record_of_a_newer_curitorch_is_refused(model_path):
    write_model_record(model_path, {**describe_model(Outer.Net()), "schema": 2})

    with pytest.raises(UnreadableFile, match="schema 2, this curitorch reads up to 1"):
        read_model_record(model_path)


def test_a_file_that_is_not_the_recorded_one_is_refused(model_path):
    record = write_model_record(model_path, describe_model(Outer.Net()))

    model_path.write_bytes(b"weight")
    with pytest.raises(UnreadableFile, match="6 bytes, recorded are 7"):
        check_model_file(model_path, record, read=False)

    model_path.write_bytes(b"weightS")
    check_model_file(model_path, record, read=False)
    with pytest.raises(UnreadableFile, match="altered"):
        check_model_file(model_path, record, read=True)

    with pytest.raises(UnreadableFile, match="bytes='7'"):
        check_model_file(model_path, {**record, "bytes": "7"}, read=False)


def test_reading_a_record_imports_no_torch(model_path):
    write_model_record(model_path, describe_model(Outer.Net()))
    probe = (
        "import sys; from pathlib import Path; from curitorch.external.model_record import *; "
        "from curitorch.external import model, model_class, model_file; "
        "assert read_model_record(Path(sys.argv[1]))['type'] == 'Net'; "
        "sys.exit('torch' in sys.modules or 'curifactory' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", probe, str(model_path)], check=False)
    assert done.returncode == 0


def test_the_record_of_an_older_curitorch_is_checked_by_its_kind_of_checksum(model_path):
    metadata_path(model_path).write_text(
        '{"extra": {"schema": 1, "type": "Net", "module": "digits.models", "qualname": "Net", '
        '"hyperparameters": "none", "arguments": null, "bytes": 7, "checksum": '
        '"sha256:9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"}}'
    )
    record = read_model_record(model_path)
    check_model_file(model_path, record, read=True)
    model_path.write_bytes(b"weightz")
    check_model_file(model_path, record, read=False)
    with pytest.raises(UnreadableFile, match="altered"):
        check_model_file(model_path, record, read=True)
    with pytest.raises(UnreadableFile, match="kind 'blake9'"):
        check_model_file(model_path, {**record, "checksum": "blake9:" + "0" * 32}, read=True)
