import io
import os
import pickle
import zipfile

import pytest
import torch

from curitorch.external.checksum import checksum
from curitorch.external.schema import UnreadableFile
from curitorch.external.stores.files.verified_load import load_verified
from curitorch.external.stores.saving.torch_image import lay_out
from curitorch.external.stores.store import StoredFile


def same(a, b):
    if isinstance(a, torch.Tensor):
        return (
            (a.dtype, a.shape, a.stride(), a.device) == (b.dtype, b.shape, b.stride(), b.device)
            and a.requires_grad == b.requires_grad
            and type(a) is type(b)
            and (a.device.type == "meta" or a.equal(b))
        )
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def state():
    shared = torch.arange(10.0)
    return {
        "big": torch.randn(700_001),
        "huge": torch.randn(3, 1_000_000).t(),
        "shared": [shared, shared[2:5], shared.view(2, 5).t()],
        "types": [torch.tensor([1, 2], dtype=t) for t in (torch.bfloat16, torch.int8, torch.bool)],
        "empty": [torch.empty(0), torch.empty(0, 3)],
        "parameter": torch.nn.Parameter(torch.ones(3)),
        "plain": {"epoch": 3, "name": "ä", "none": None, "tuple": (1, 2.5)},
    }


def ours(obj, path):
    image = lay_out(obj)
    buffer = bytearray(image.size)
    image.copy_into(buffer)
    path.write_bytes(buffer)


def theirs(obj, path):
    torch.save(obj, path)


def old_format(obj, path):
    torch.save(obj, path, _use_new_zipfile_serialization=False)


def record(path, kind="xxh3"):
    return StoredFile(path.stat().st_size, checksum(path, kind=kind))


@pytest.mark.parametrize(
    "options",
    [{}, {"weights_only": False}, {"map_location": "meta"}, {"map_location": lambda s, _: s}],
)
@pytest.mark.parametrize("save", [ours, theirs, old_format])
def test_it_is_what_torch_load_returns(tmp_path, save, options):
    if save is old_format and options.get("map_location") == "meta":
        pytest.skip("torch cannot do that with its old format")
    path = tmp_path / "x.pt"
    save(state(), path)
    expected = torch.load(path, **options)
    for recorded in (record(path), record(path, "sha256"), None):
        loaded = load_verified(path, recorded, **options)
        assert same(loaded, expected)
    if options.get("map_location") != "meta":
        assert loaded["shared"][0].data_ptr() + 8 == loaded["shared"][1].data_ptr()


@pytest.mark.parametrize("save", [ours, theirs])
def test_a_mapped_file_too(tmp_path, save):
    path = tmp_path / "x.pt"
    save(state(), path)
    loaded = load_verified(path, record(path), mmap=True)
    assert same(loaded, torch.load(path))
    loaded["big"] += 1
    assert same(load_verified(path, record(path))["big"] + 1, loaded["big"])  # not in the file


def test_each_tensor_has_memory_of_its_own_which_can_be_given_back(tmp_path):
    path = tmp_path / "x.pt"
    theirs([torch.ones(1000), torch.ones(2000)], path)
    first, second = load_verified(path, record(path))
    assert [t.untyped_storage().nbytes() for t in (first, second)] == [4000, 8000]
    first.untyped_storage().resize_(0)
    assert second.sum() == 2000


class Boom:
    def __reduce__(self):
        return (pytest.fail, ("it was unpickled",))


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("save", [ours, theirs, old_format])
def test_nothing_is_unpickled_of_a_file_that_is_torn_or_altered_anywhere(tmp_path, save, mmap):
    path = tmp_path / "x.pt"
    save({"x": torch.arange(3000), "boom": Boom()}, path)
    recorded, whole = record(path), path.read_bytes()
    places = [0, 3, 40, len(whole) // 2, len(whole) - 30, len(whole) - 1]
    damaged = [whole[:p] + bytes([whole[p] ^ 1]) + whole[p + 1 :] for p in places]
    damaged += [whole[:-7], whole[:100], b"", whole + b"x", b"y" * len(whole)]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(UnreadableFile, match="altered"):
            load_verified(path, recorded, weights_only=False, mmap=mmap)


def test_a_file_that_shrinks_while_it_is_read_is_torn(tmp_path, monkeypatch):
    path = tmp_path / "x.pt"
    theirs(torch.ones(1_000_000), path)
    recorded = record(path)
    read = os.preadv

    def shrink(descriptor, buffers, offset):
        if len(buffers[0]) > 1_000_000:
            os.truncate(path, offset + 10)
        return read(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", shrink)
    with pytest.raises(UnreadableFile, match="torn"):
        load_verified(path, recorded)


def test_what_weights_only_does_not_allow_is_refused_in_torchs_words(tmp_path):
    path = tmp_path / "x.pt"
    theirs({"boom": Boom()}, path)
    for recorded in (record(path), None):
        with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
            load_verified(path, recorded)


def test_the_environment_is_obeyed_as_torch_does(tmp_path, monkeypatch):
    path = tmp_path / "x.pt"
    theirs({"odd": io.StringIO("fine")}, path)
    with pytest.raises(pickle.UnpicklingError):
        load_verified(path, record(path))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.warns(UserWarning, match="TORCH_FORCE"):
        assert load_verified(path, record(path))["odd"].read() == "fine"


def test_a_program_and_a_compressed_archive_are_left_to_torch(tmp_path):
    path = tmp_path / "program.pt"
    with pytest.warns(DeprecationWarning):
        torch.jit.save(torch.jit.script(torch.nn.ReLU()), path)
    with pytest.warns(UserWarning, match="TorchScript"):
        program = load_verified(path, record(path), weights_only=False)
    assert program(torch.tensor(-1.0)) == 0
    theirs([torch.ones(3)], path)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    assert load_verified(path, record(path))[0].sum() == 3


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_verified(tmp_path / "x.pt", None)
