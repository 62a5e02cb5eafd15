"""Files of models that are torn, altered, foreign or not trusted: nothing of them is run."""

import os
import pickle
import zipfile

import pytest
import torch

from curitorch.external.model import load_model, save_model
from curitorch.external.model_file import UntrustedModel
from curitorch.external.model_record import describe_model, metadata_path, write_model_record
from curitorch.external.schema import UnreadableFile


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a $b 'c' ü" / "model.ckpt"


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, -1])
@pytest.mark.parametrize("recorded", [True, False])
def test_a_torn_file_is_never_loaded(zoo, path, keep, recorded):
    save_model(zoo.Net(hidden=2000), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep) if isinstance(keep, float) else keep])
    if not recorded:
        metadata_path(path).unlink()

    with pytest.raises(UnreadableFile, match="torn"):
        load_model(path, model_class=zoo.Net, trusted=True)


def test_an_altered_byte_is_noticed(zoo, path):
    save_model(zoo.Net(hidden=2000), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(UnreadableFile, match="altered"):
        load_model(path)


def test_an_altered_pickle_without_a_record_is_one_clear_error(zoo, path):
    save_model(zoo.Net(), path)
    metadata_path(path).unlink()
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    for damage in (b"", b"\x80\x02}q\x00", b"hello", b"\x80\x02X\xff\xff\xff\x7fa.", b"\x80\x02(."):
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in parts.items():
                archive.writestr(name, damage if name.endswith("data.pkl") else content)
        for trusted in (True, False):
            with pytest.raises(UnreadableFile, match="cannot be read as a checkpoint"):
                load_model(path, model_class=zoo.Net, trusted=trusted)


@pytest.mark.parametrize(
    "content",
    [b"hello", b"\n", pickle.dumps({"state_dict": {}}), b"PK\x05\x06" + bytes(18), b"\x89HDF\r\n"],
)
def test_a_foreign_file_is_not_a_checkpoint(zoo, path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(UnreadableFile, match=r"model\.ckpt"):
        load_model(path, model_class=zoo.Net, trusted=True)


@pytest.mark.parametrize("content", [{"model": 1}, [1], 3, {"state_dict": None}, torch.ones(2)])
def test_a_torch_file_that_is_no_lightning_checkpoint_is_told(zoo, path, content):
    path.parent.mkdir()
    torch.save(content, path)
    with pytest.raises(UnreadableFile, match="is not a Lightning checkpoint"):
        load_model(path, model_class=zoo.Net)


@pytest.mark.parametrize(
    "name",
    [
        "pathlib.PosixPath",
        "zoo.models.Settings",
        "functools.partial",
        "numpy",
        "torch.nn.modules.linear.Linear",
    ],
)
def test_hyperparameters_that_need_trust_are_named_and_opened_when_it_is_given(zoo, path, name):
    save_model(zoo.Any(zoo.needy[name]), path)

    with pytest.raises(UntrustedModel) as failure:
        load_model(path)
    assert name in str(failure.value)
    assert "trusted=True" in str(failure.value)
    assert type(load_model(path, trusted=True).hparams["what"]) is type(zoo.needy[name])


class Bomb:
    def __reduce__(self):
        return exec, ("import os; os.environ['CURITORCH_TEST_BOMB'] = 'exploded'",)


def test_an_untrusted_file_runs_nothing(zoo, path, monkeypatch):
    monkeypatch.setenv("CURITORCH_TEST_BOMB", "whole")
    save_model(zoo.Net(), path)
    checkpoint = torch.load(path, weights_only=True)
    torch.save({**checkpoint, "bomb": Bomb()}, path)
    write_model_record(path, describe_model(zoo.Net()))

    with pytest.raises(UntrustedModel, match="exec"):
        load_model(path)
    assert os.environ["CURITORCH_TEST_BOMB"] == "whole"
    load_model(path, trusted=True)
    assert os.environ["CURITORCH_TEST_BOMB"] == "exploded"


def test_trust_that_needs_code_which_is_gone_says_so(zoo, path, monkeypatch):
    save_model(zoo.Any(zoo.Settings()), path)
    monkeypatch.delattr(zoo, "Settings")
    with pytest.raises(UnreadableFile, match=r"zoo.models.Settings.*cannot be brought back"):
        load_model(path, trusted=True)


def test_torn_metadata_is_named(zoo, path):
    save_model(zoo.Net(), path)
    metadata = metadata_path(path)
    metadata.write_text(metadata.read_text()[:30])
    with pytest.raises(UnreadableFile, match="model_metadata"):
        load_model(path)
