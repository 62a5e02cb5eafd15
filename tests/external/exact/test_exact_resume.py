"""Plain Lightning with a callback and `exact_data`: a resume ends as if nothing had happened.

One uninterrupted training saves wherever it can; from each of its files a fresh one goes on, and
has to end with bitwise the same weights, optimizers, schedulers, metrics and logged values.
"""

import warnings

import pytest
import resume_matrix as matrix
import torch
from lightning.pytorch import Callback, Trainer
from matrix_cases import CASES, WORKERS

from curitorch.external.exact.exact_resume import KEY
from curitorch.external.stop import StopRequest, TrainingStopped
from curitorch.external.stores import LocalStore, PeriodicCheckpoint
from curitorch.params import CheckpointParams

QUICK = [  # the fast suite's; the slow one has all
    *("shuffled", "augmentation and noise", "a sampler with a state", "a stream without a state"),
    *("metrics", "random hooks", "accumulation", "plateau by epochs of a mean of training"),
    *("early stopping", "validation over epochs", "a limit of steps", "a limited stream"),
]


def check(case, files, whole, **options):
    """Resume from each of `files` and compare with the `whole` training."""
    assert files
    for file in files:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            resumed = matrix.fit(case, resume=file, **options)
        assert not matrix.differences(whole, resumed, file), file


@pytest.mark.parametrize(
    "name",
    [c if c in QUICK else pytest.param(c, marks=pytest.mark.slow) for c in CASES],
)
def test_a_training_resumed_after_any_step_ends_as_one_that_was_not(name, tmp_path):
    case = CASES[name]
    if "says" in case:
        with pytest.warns(UserWarning, match=case["says"]):
            alone = matrix.fit(case)
    else:
        alone = matrix.fit(case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = matrix.fit(case, savers=[matrix.every_step(tmp_path)])
    assert matrix.same(whole, alone)  # saving is not noticed
    files = sorted(tmp_path.glob("*/model.ckpt"))
    assert len(files) == whole["step"] or "manual" in case.get("net", {})
    every = 2 if case.get("net", {}).get("metrics") or len(files) > 15 else 1  # to save time
    check(case, files[:-1:every], whole)  # nothing is left to train after the last


def lightnings_own(name, folder):
    case = CASES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = matrix.fit(case, savers=matrix.model_checkpoints(folder), net_class=matrix.Net)
    check(case, sorted(folder.glob("*.ckpt")), whole, net_class=matrix.Net)


@pytest.mark.parametrize("name", QUICK)
def test_lightnings_own_checkpoints_resume_exactly(name, tmp_path):
    lightnings_own(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name not in QUICK])
def test_lightnings_own_checkpoints_of_any_training_resume_exactly(name, tmp_path):
    lightnings_own(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", WORKERS)
def test_worker_processes_load_the_same_after_a_resume(name, tmp_path):
    case = WORKERS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = matrix.fit(case, savers=[matrix.every_step(tmp_path)])
    files = sorted(tmp_path.glob("*/model.ckpt"))
    check(case, [files[0], files[3], files[4], files[7]], whole)


class StopsIn(Callback):
    """What a signal does, at an exact place."""

    def __init__(self, stop, place):
        self.stop, self.place = stop, place

    def reach(self, *place):
        if place == self.place:
            self.stop.reason = "SIGTERM"

    def on_validation_start(self, trainer, module):
        if not trainer.sanity_checking:
            self.reach(trainer.global_step, -1)

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx, dataloader=0):
        if not trainer.sanity_checking:
            self.reach(trainer.global_step, batch_idx)


@pytest.mark.parametrize(
    ("name", "moments"),
    [
        ("metrics", ["validation", "validation"]),
        ("random hooks", ["validation", "validation"]),
        ("several validation loaders", ["validation", "rest"]),  # no step is logged twice
        ("accumulation", ["validation", "rest"]),
    ],
)
def test_a_stop_request_in_a_validation_is_followed_as_soon_as_can_be(name, moments, tmp_path):
    case = CASES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = matrix.fit(case)
        step = 3 if name == "accumulation" else 5  # at the end of the first epoch
        for batch, moment in zip((-1, 1), moments, strict=True):
            folder, stop = tmp_path / f"{batch}", StopRequest()
            saver = PeriodicCheckpoint(LocalStore(folder), CheckpointParams(), stop=stop)
            with pytest.raises(TrainingStopped) as stopped:
                matrix.fit(case, savers=[StopsIn(stop, (step, batch)), saver])
            assert (stopped.value.step, stopped.value.saved) == (step, True)
            [*_, file] = sorted(folder.glob("*/model.ckpt"))
            assert torch.load(file, weights_only=True)[KEY]["moment"] == moment
            check(case, [file], whole)


class Saves(Callback):
    """A user's own callback, which saves in a hook."""

    def __init__(self, hook, folder):
        def save(trainer, *_):
            if not trainer.sanity_checking:
                step = f"{trainer.current_epoch}-{trainer.global_step}-{len(self.saved)}"
                self.saved.append(folder / f"{step}.ckpt")
                trainer.save_checkpoint(self.saved[-1])

        self.saved = []
        setattr(self, hook, save)


@pytest.mark.parametrize(
    "hook",
    [
        *("on_train_epoch_start", "on_train_batch_start", "on_train_batch_end"),
        *("on_validation_start", "on_validation_batch_end", "on_validation_epoch_end"),
        "on_validation_end",
    ],
)
def test_a_users_own_save_in_any_hook_resumes_exactly(hook, tmp_path):
    for name in ("validation by steps", "accumulation"):
        case, saver = CASES[name], Saves(hook, tmp_path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            whole = matrix.fit(case, savers=[saver], net_class=matrix.Net)
        check(case, saver.saved[:: len(saver.saved) // 5 or 1], whole, net_class=matrix.Net)


class Fails(matrix.Net):
    """Raises in the middle of a step, once all is logged and counted."""

    at = 7

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        if self.trainer.global_step == self.at:
            raise ZeroDivisionError
        return loss


@pytest.mark.parametrize("name", ["metrics", "means", "a sampler with a state"])
def test_what_is_saved_after_an_error_is_the_last_whole_step(name, tmp_path):
    case = CASES[name]
    policy = CheckpointParams(every_n_epochs=None)
    with pytest.raises(ZeroDivisionError):
        saver = PeriodicCheckpoint(LocalStore(tmp_path), policy)
        matrix.fit(case, savers=[saver], net_class=Fails)
    [file] = tmp_path.glob("*/model.ckpt")
    assert file.parent.name == "step-00000007"
    resumed = matrix.fit(case, resume=file, net_class=matrix.Net)
    whole = matrix.fit(case, net_class=matrix.Net)
    assert matrix.same({**whole, "entries": 0}, {**resumed, "entries": 0})
    assert matrix.same(whole["entries"][-len(resumed["entries"]) :], resumed["entries"])


def test_a_file_of_plain_lightning_is_entered_where_it_was_saved(tmp_path):
    """Which Lightning itself does not: at an epoch's end it leaves the whole next one out."""
    case = CASES["in order"]
    matrix.quiet()
    saver = matrix.ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    trainer = Trainer(max_epochs=3, callbacks=[saver], logger=False, enable_progress_bar=False)
    trainer.fit(matrix.Net(), matrix.data_of("plain"), matrix.data_of("plain"))
    for step in range(1, 15):
        resumed = matrix.fit(case, resume=tmp_path / f"step={step}.ckpt")
        logged = [at for at, metrics in resumed["entries"] if "loss" in metrics]
        assert (resumed["step"], resumed["epoch"]) == (15, 3)
        assert logged == [*range(step - 1, 15)] or logged == [*range(step, 15)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["dropout", "means", "metrics", "random hooks", "accumulation"])
def test_a_training_on_a_gpu_resumes_exactly(name, tmp_path):
    case = dict(CASES[name])
    case["trainer"] = {**case.get("trainer", {}), "accelerator": "gpu", "deterministic": True}
    whole = matrix.fit(case, savers=[matrix.every_step(tmp_path)])
    check(case, sorted(tmp_path.glob("*/model.ckpt"))[:-1:2], whole)
