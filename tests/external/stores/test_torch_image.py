import zipfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curitorch.external.checksum import checksum
from curitorch.external.stores.saving.torch_image import ALIGNMENT, lay_out
from curitorch.external.stores.store import StoredFile


def written(obj, path):
    image = lay_out(obj)
    buffer = bytearray(image.size)
    image.copy_into(buffer)
    path.write_bytes(buffer)
    return image


def same(a, b):
    """Compare nested values; torch's own comparison does not take text."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def state():
    model = torch.nn.Linear(7, 5)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 7)).sum().backward()
    optimizer.step()
    shared = torch.arange(10.0)
    return {
        "state_dict": model.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
        "shared": [shared, shared[2:5], shared.view(2, 5).t()],
        "types": [torch.tensor([1, 2], dtype=t) for t in (torch.bfloat16, torch.int8, torch.bool)],
        "empty": torch.empty(0),
        "scalar": torch.tensor(3.5),
        "plain": {"epoch": 3, "name": "ä", "none": None, "tuple": (1, 2.5)},
        "parameter": torch.nn.Parameter(torch.ones(3)),
        "generator": torch.get_rng_state(),
    }


@pytest.mark.parametrize("options", [{}, {"mmap": True}, {"weights_only": False}])
def test_torch_load_opens_what_was_laid_out_as_what_it_saved_itself(tmp_path, options):
    obj = state()
    written(obj, tmp_path / "ours.pt")
    torch.save(obj, tmp_path / "theirs.pt")
    ours = torch.load(tmp_path / "ours.pt", **options)
    theirs = torch.load(tmp_path / "theirs.pt", **options)
    assert same(ours, theirs)
    assert ours["shared"][0].data_ptr() + 8 == ours["shared"][1].data_ptr()  # still one storage


def test_shared_memory_is_stored_once_and_storages_are_aligned(tmp_path):
    big = torch.zeros(1_000_000)
    image = written([big, big[10:], big.clone()], tmp_path / "x.pt")
    assert 8_000_000 < image.size < 8_010_000
    storages = [p for p in image.pieces if not isinstance(p.data, bytes)]
    assert [p.offset % ALIGNMENT for p in storages] == [0, 0]


def test_the_archive_is_a_zip_file_with_the_names_that_torch_uses(tmp_path):
    obj = state()
    written(obj, tmp_path / "ours.pt")
    torch.save(obj, tmp_path / "theirs.pt")
    ours, theirs = (zipfile.ZipFile(tmp_path / f"{n}.pt").namelist() for n in ("ours", "theirs"))
    left_out = {".data/serialization_id"}  # only a name for torch's own telemetry
    expected = {name.split("/", 1)[1] for name in theirs} - left_out
    assert {name.split("/", 1)[1] for name in ours} == expected


def test_the_structure_is_pickled_byte_for_byte_as_torch_does_it(tmp_path):
    """Guards the one thing here that follows torch's own code: a new torch may change it."""
    tagged = torch.ones(2)
    tagged.tag = "of the user"
    obj = {
        **state(),
        "tagged": tagged,
        "negative": torch.ones(2, dtype=torch.complex64).conj().imag,
        "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        "double": torch.ones(2, dtype=torch.complex128),
        "part": [torch.arange(9.0).view(3, 3)[1:, :2], torch.ones(1).expand(4)],
        "sparse": torch.eye(3).to_sparse(),
        "nowhere": torch.empty(3, 2, device="meta"),
        "bytes": torch.ones(3).untyped_storage(),
        "storage": torch.storage.TypedStorage([1.0, 2.0]),
        "wide": torch.tensor([1, 2], dtype=torch.uint16),
        "leaf": torch.ones(2, requires_grad=True),
        "conjugated": torch.ones(2, dtype=torch.complex64).conj(),
    }
    torch.save(obj, tmp_path / "theirs.pt")
    with zipfile.ZipFile(tmp_path / "theirs.pt") as theirs:
        expected = {n.split("/", 1)[1]: theirs.read(n) for n in theirs.namelist()}
    written(obj, tmp_path / "ours.pt")
    # Not by ZipFile.read, which would compare checksums.
    ours = torch._C.PyTorchFileReader(str(tmp_path / "ours.pt"))
    del expected[".data/serialization_id"]
    assert {name: ours.get_record(name) for name in expected} == expected


def test_a_meta_tensor_is_its_shape_alone(tmp_path):
    image = written(torch.empty(10_000, 10_000, device="meta"), tmp_path / "x.pt")
    assert image.size < 2000
    loaded = torch.load(tmp_path / "x.pt")
    assert (loaded.device.type, loaded.shape) == ("meta", (10_000, 10_000))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpus_tensors_are_copied_and_written_without_a_whole_copy_on_the_cpu(tmp_path):
    obj = {"a": torch.arange(1e6, device="cuda"), "b": torch.ones(3), "empty": torch.empty(0)}
    image = written(obj, tmp_path / "copied.pt")
    torch.save(obj, tmp_path / "theirs.pt")
    ours, theirs = (torch.load(tmp_path / f"{n}.pt") for n in ("copied", "theirs"))
    assert ours["a"].device == theirs["a"].device
    assert same({**ours}, {**theirs})
    image.write_to(tmp_path / "written.pt")
    assert (tmp_path / "written.pt").read_bytes() == (tmp_path / "copied.pt").read_bytes()


def test_each_piece_begins_where_the_one_before_ends():
    image = lay_out(state())
    position = 0
    for piece in image.pieces:
        assert piece.offset == position
        position += piece.size
    assert position == image.size


def test_written_to_a_file_it_is_the_same_bytes_and_their_checksum(tmp_path):
    obj = state()
    image = written(obj, tmp_path / "copied.pt")
    stored = image.write_to(tmp_path / "written.pt")
    assert (tmp_path / "written.pt").read_bytes() == (tmp_path / "copied.pt").read_bytes()
    assert stored == StoredFile(image.size, checksum(tmp_path / "written.pt"))


def test_the_saved_tensors_can_be_resized_as_before(tmp_path):
    tensor = torch.ones(100_000)
    image = written(tensor, tmp_path / "x.pt")
    image.write_to(tmp_path / "y.pt")
    tensor.untyped_storage().resize_(0)  # as FSDP does


def test_what_cannot_be_saved_is_refused_as_torch_refuses_it():
    storage = torch.zeros(4)
    with pytest.raises(RuntimeError, match="view the same data as different types"):
        lay_out([storage, storage.view(torch.int32)])
    with pytest.raises((AttributeError, TypeError, Exception), match="pickle"):
        lay_out(lambda: None)


@settings(max_examples=30)
@given(
    st.recursive(
        st.one_of(
            st.integers(),
            st.text(),
            st.floats(allow_nan=False),
            st.binary(max_size=5),
            st.lists(st.integers(0, 4), max_size=3).map(lambda shape: torch.ones(shape)),
        ),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=12,
    )
)
def test_any_plain_structure_goes_round(tmp_path_factory, obj):
    path = tmp_path_factory.mktemp("x") / "x.pt"
    written(obj, path)
    loaded = torch.load(path, weights_only=False)
    assert same(loaded, obj)
