import threading

import pytest
import torch

from curitorch.external.stores.saving.deferred import DeferredCopy, TensorsChanged
from curitorch.external.stores.saving.owned import OptimizerWatch
from curitorch.external.stores.saving.side_stream import SideStream
from curitorch.external.stores.saving.torch_image import Piece, lay_out

BIG = 50_000  # elements; more than is copied at once


class Training:
    """Each step adds one to every element of every tensor, through an optimizer of torch."""

    def __init__(self, device="cpu", tensors=6, **options):
        self.parameters = [
            torch.nn.Parameter(torch.zeros(BIG, device=device)) for _ in range(tensors)
        ]
        self.optimizer = torch.optim.SGD(self.parameters, lr=1.0, **options)
        self.buffer = torch.zeros(BIG, device=device)
        self.steps = 0

    def step(self):
        self.buffer += 1  # as BatchNorm does in the forward pass
        for parameter in self.parameters:
            parameter.grad = torch.full_like(parameter, -1.0)
        self.optimizer.step()
        self.steps += 1

    def state(self):
        tensors = [parameter.detach() for parameter in self.parameters]
        return {"steps": self.steps, "tensors": tensors, "buffer": self.buffer}


@pytest.fixture
def watch():
    watch = OptimizerWatch()
    yield watch
    watch.close()


@pytest.fixture
def late(monkeypatch):
    """Keep the threads from copying until the test says so."""
    now = threading.Event()
    real = DeferredCopy._copy

    def copy(self):
        now.wait()
        real(self)

    monkeypatch.setattr(DeferredCopy, "_copy", copy)
    yield now
    now.set()


def begin(state, watch, **options):
    image = lay_out(state)
    buffer = bytearray(image.size)
    watch.pending = DeferredCopy(image, buffer, watch.owned(), **options)
    return watch.pending, buffer


def loaded(buffer, tmp_path):
    (tmp_path / "x.pt").write_bytes(buffer)
    return torch.load(tmp_path / "x.pt", map_location="cpu")


def values(saved):
    return {saved["steps"], *(v for tensor in saved["tensors"] for v in extremes(tensor))}


def extremes(tensor):
    return {value.item() for value in tensor.aminmax()}


@pytest.mark.parametrize("options", [{}, {"foreach": True}, {"fused": True}, {"momentum": 1e-9}])
def test_every_copy_is_of_one_step_while_every_step_changes_every_tensor(
    tmp_path, watch, one_thread, options
):
    training = Training(**options)
    training.step()
    for _ in range(100):
        copy, buffer = begin(training.state(), watch)
        assert copy.bytes >= 6 * BIG * 4
        before = training.steps
        training.step()
        copy.finish()
        saved = loaded(buffer, tmp_path)
        assert values(saved) == {before}
        assert extremes(saved["buffer"]) == {before}


def test_a_step_waits_for_the_copy_and_what_no_optimizer_owns_is_copied_at_once(
    tmp_path, watch, late
):
    training = Training()
    training.step()
    done = threading.Event()
    copy, buffer = begin(training.state(), watch, then=done.set)
    assert extremes(loaded(buffer, tmp_path)["buffer"]) == {1}
    stepping = threading.Thread(target=training.step)
    stepping.start()
    stepping.join(0.1)
    assert stepping.is_alive()
    assert {p.unique().item() for p in training.parameters} == {1}
    assert not done.is_set()
    late.set()
    stepping.join()
    copy.finish()
    assert done.is_set()
    assert values(loaded(buffer, tmp_path)) == {1}
    assert {p.unique().item() for p in training.parameters} == {2}


def add_in_place(training):
    with torch.no_grad():
        training.parameters[-1].add_(1)


def add_to_one_element(training):
    with torch.no_grad():
        training.parameters[-1][17] += 1


def add_to_data(training):  # which torch does not count
    training.parameters[-1].data.add_(1)


def write_through_numpy(training):
    training.parameters[-1].detach().numpy()[:] = 7


def change_the_state(training):
    training.optimizer.state[training.parameters[-1]]["momentum_buffer"].mul_(2)


def load(training):
    training.optimizer.param_groups[0]["params"][-1].data.copy_(torch.ones(BIG) * 9)


@pytest.mark.parametrize(
    "change",
    [add_in_place, add_to_one_element, add_to_data, write_through_numpy, change_the_state, load],
)
def test_a_change_before_the_copy_that_did_not_ask_is_detected(watch, late, change):
    training = Training(momentum=0.9)
    training.step()
    done = threading.Event()
    copy, _ = begin({**training.state(), **training.optimizer.state_dict()}, watch, then=done.set)
    change(training)
    late.set()
    with pytest.raises(TensorsChanged, match=r"1 tensors \(of shape \(50000,\)\) were changed"):
        copy.finish()
    assert not done.is_set()
    copy.finish()  # raised once


def test_a_change_at_any_moment_makes_a_whole_copy_or_an_error_never_a_mixture(
    tmp_path, watch, one_thread
):
    training = Training(tensors=12)
    training.step()
    for attempt in range(200):
        before = training.parameters[0][0].item()
        copy, buffer = begin({**training.state(), "steps": before}, watch)
        for _ in range(attempt % 20 * 50):
            pass  # a little later each time
        with torch.no_grad():
            for parameter in training.parameters:
                parameter.add_(1)
        try:
            copy.finish()
        except TensorsChanged:
            continue
        assert values(loaded(buffer, tmp_path)) == {before}


def test_a_storage_of_which_an_optimizer_owns_only_a_part_is_copied_at_once(tmp_path, watch):
    whole = torch.zeros(2, BIG)
    half = torch.nn.Parameter(whole[0])
    half.grad = torch.ones(BIG)
    optimizer = torch.optim.SGD([half], lr=1.0)
    optimizer.step()
    assert watch.owned()
    copy, buffer = begin({"steps": -1, "tensors": [half.detach()]}, watch)
    assert copy.bytes == 0
    whole += 100
    copy.finish()
    assert values(loaded(buffer, tmp_path)) == {-1}


def test_the_copied_tensors_can_be_resized_as_before(watch):
    training = Training()
    training.step()
    copy, _ = begin(training.state(), watch)
    copy.finish()
    training.parameters[0].untyped_storage().resize_(0)  # as FSDP does


def test_an_error_after_the_copy_is_raised_by_finish_and_no_step_hangs(watch):
    def full():
        raise OSError(28, "No space left on device")

    training = Training()
    training.step()
    copy, _ = begin(training.state(), watch, then=full)
    training.step()
    with pytest.raises(OSError, match="No space left"):
        copy.finish()


def test_copies_on_a_stream_of_their_own_also_where_streams_do_nothing():
    source, target = torch.arange(100, dtype=torch.uint8), torch.zeros(200, dtype=torch.uint8)
    stream = SideStream(torch.device("cpu"))
    stream.copy([Piece(64, 100, source.untyped_storage())], target)
    stream.hold()
    stream.wait()
    assert target[64:164].equal(source)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_every_copy_is_of_one_step_and_training_is_not_stopped(tmp_path, watch):
    training = Training(device="cuda", tensors=40)
    training.step()
    for _ in range(100):
        copy, buffer = begin(training.state(), watch)
        assert copy.bytes >= 40 * BIG * 4
        before = training.steps
        for _ in range(5):
            training.step()
        copy.finish()
        saved = loaded(buffer, tmp_path)
        assert values(saved) == {before}
        assert extremes(saved["buffer"]) == {before}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_an_early_change_that_is_counted_is_detected(watch, late):
    training = Training(device="cuda")
    training.step()
    copy, _ = begin(training.state(), watch)
    add_in_place(training)
    late.set()
    with pytest.raises(TensorsChanged):
        copy.finish()
