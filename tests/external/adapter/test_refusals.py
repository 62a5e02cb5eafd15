"""What a project may not have on the lean loop: all of it in one error, with file and line."""

import functools
import inspect
import re
import warnings

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.callbacks import (
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    RichProgressBar,
)
from lightning.pytorch.utilities.combined_loader import CombinedLoader

from curitorch.external.adapter.hooks import REMOVED_FOR_DATA, SUPPORT
from curitorch.external.adapter.refusals import (
    LeftOut,
    UnsupportedProject,
    check,
    check_class,
    check_classes,
)


class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Data(LightningDataModule):
    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.zeros(4, 2))


def with_(base=Net, **members):
    return type("Mine", (base,), members)


def refused(module, datamodule=None, **settings) -> str:
    with pytest.raises(UnsupportedProject) as error:
        check(module, datamodule, **settings)
    return str(error.value)


def here(function) -> str:
    return f"test_refusals.py:{inspect.unwrap(function).__code__.co_firstlineno}"


def test_a_plain_project_passes_without_a_word():
    with warnings.catch_warnings():
        warnings.simplefilter("error", LeftOut)
        check(Net(), Data())


@pytest.mark.parametrize("name", [n for n, s in SUPPORT.items() if s.verdict == "refused"])
def test_a_removed_hook_is_refused_with_what_to_do_today(name):
    def hook(self, *arguments):
        return None

    text = refused(with_(**{name: hook})())
    assert f"{here(hook)}: Mine.{name}: " in text
    assert SUPPORT[name].remedy in text


@pytest.mark.parametrize("name", REMOVED_FOR_DATA)
def test_a_removed_hook_of_data_is_refused_too(name):
    def hook(self, *arguments):
        return None

    text = refused(Net(), with_(Data, **{name: hook})())
    assert f"{here(hook)}: Mine.{name}: " in text
    assert REMOVED_FOR_DATA[name].remedy in text


def test_hooks_on_saving_are_live_in_a_module_and_removed_from_data():
    check(with_(on_save_checkpoint=lambda self, checkpoint: None)())
    data = with_(Data, on_save_checkpoint=lambda self, checkpoint: None)()
    assert "state_dict" in refused(Net(), data)


def test_all_of_a_project_comes_in_one_error():
    def split(self, batch, size):
        return [batch]

    def ended(self, outputs):
        return None

    module = with_(tbptt_split_batch=split, on_train_epoch_end=ended, training_step_end=ended)()
    text = refused(module, with_(Data, on_load_checkpoint=split)())
    assert text.splitlines()[0] == (
        "Mine cannot be trained on the lean loop as it is; 4 things have to change:"
    )
    assert len(re.findall(r"^  .*test_refusals\.py:\d+: Mine\.\w+: .*\.$", text, re.M)) == 4


OLD = {
    "optimizer_idx": ("training_step", lambda self, batch, batch_idx, optimizer_idx: None),
    "hiddens": ("training_step", lambda self, batch, batch_idx, hiddens: None),
    "(batch, batch_idx)": ("training_step", lambda self, dataloader_iter: None),
    "outputs of an epoch": ("on_validation_epoch_end", lambda self, outputs: None),
    "dataloader_idx is not passed": (
        "on_train_batch_start",
        lambda self, batch, batch_idx, dataloader_idx: None,
    ),
    "on_tpu": ("optimizer_step", lambda self, e, b, o, optimizer_idx, c, on_tpu: None),
    "is called with (batch, device, dataloader_idx)": (
        "transfer_batch_to_device",
        lambda self, batch, device: batch,
    ),
    "is called with (scheduler, metric)": (
        "lr_scheduler_step",
        lambda self, scheduler, number, metric: None,
    ),
    "is called with (stage=…)": ("setup", lambda self: None),
}


@pytest.mark.parametrize("words", OLD)
def test_an_old_signature_is_refused(words):
    name, function = OLD[words]
    text = refused(with_(**{name: function})())
    if words != "on_tpu":
        assert words in text
    assert f"{here(function)}: Mine.{name}: " in text


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("training_step", lambda self, batch: None),
        ("training_step", lambda self, batch, i: None),
        ("training_step", lambda self, *args, **kwargs: None),
        ("training_step", lambda self, batch, batch_idx, optimizer_idx=None: None),
        ("validation_step", lambda self, batch, batch_idx, dataloader_idx=0: None),
        ("validation_step", lambda self, batch, batch_idx, dataloader_idx: None),
        ("on_validation_batch_end", lambda self, outputs, batch, batch_idx: None),
        ("on_train_epoch_end", lambda self, unused=None: None),
        ("setup", lambda self, stage=None: None),
        ("on_train_start", torch.no_grad()(lambda self: None)),
        ("on_train_end", staticmethod(lambda: None)),
        ("automatic_optimization", property(lambda self: True)),
        ("forward", lambda self, x, mask=None: x),
        ("load_state_dict", lambda self, state_dict, strict=True: None),
        ("helper", lambda self, anything: None),
        ("on_my_own", lambda self, anything: None),
    ],
)
def test_what_lightning_calls_rightly_passes(name, function):
    with warnings.catch_warnings():
        warnings.simplefilter("error", LeftOut)
        check(with_(**{name: function})())


def test_decorated_and_mixed_in_overrides_are_found_where_they_are_written():
    def logged(function):
        @functools.wraps(function)
        def around(*arguments):
            return function(*arguments)

        return around

    class Mixin:
        @logged
        def on_train_epoch_end(self, outputs):
            return None

    class Mine(Mixin, Net):
        pass

    class Behind(Net, Mixin):
        pass

    text = refused(Mine())
    assert f"{here(Mixin.on_train_epoch_end)}: " in text
    assert "Mixin.on_train_epoch_end" in text
    check(Behind())  # LightningModule's own comes first


def test_what_an_instance_was_given_counts_as_an_override():
    module = Net()
    module.training_step_end = lambda outputs: outputs
    module.truncated_bptt_steps = 2
    text = refused(module)
    assert "training_step_end" in text
    assert "truncated_bptt_steps" in text


def test_a_name_that_the_table_does_not_know_is_refused(monkeypatch):
    monkeypatch.setattr(LightningModule, "on_new_moon", lambda self: None, raising=False)
    module = with_(on_new_moon=lambda self: None)()
    assert "does not know what Lightning does with it" in refused(module)
    private = with_(_apply_batch_transfer_handler=lambda self, batch: batch)()
    assert "Mine._apply_batch_transfer_handler: this version" in refused(private)


def test_what_the_loop_itself_sets_is_not_overridden():
    assert "self.log" in refused(with_(log=lambda self, name, value: None)())
    assert "trainer" in refused(with_(trainer=property(lambda self: None))())


def test_a_module_without_a_step_or_an_optimizer_is_refused():
    text = refused(LightningModule())
    assert "training_step" in text
    assert "configure_optimizers" in text


def test_manual_optimisation_accumulates_and_clips_by_itself():
    module = Net()
    module.automatic_optimization = False
    check(module)
    text = refused(module, accumulate=4, clips=True)
    assert "accumulate 4 batches" in text
    assert "self.clip_gradients" in text


def test_what_depends_on_the_number_of_processes_is_refused_for_any_world():
    module = Net()
    module.norm = torch.nn.BatchNorm1d(2)
    module.free = torch.nn.BatchNorm1d(2, track_running_stats=False)
    check(module)
    text = refused(module, exact="world")
    assert "Net.norm: BatchNorm1d" in text
    assert "Net.free" not in text
    step = with_(optimizer_step=lambda self, epoch, i, optimizer, closure=None: None)()
    check(step)
    assert "optimizer_step" in refused(step, exact="world")
    module = Net()
    module.automatic_optimization = False
    assert "exact='rank'" in refused(module, exact="world")


def test_what_training_does_not_run_is_said_in_one_warning():
    module = with_(
        test_step=lambda self, batch: None,
        on_test_end=lambda self: None,
        predict_step=lambda self, batch: None,
    )()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        check(module, with_(Data, test_dataloader=lambda self: None)())
    [warning] = [each for each in said if each.category is LeftOut]
    for name in ("test_step", "on_test_end", "predict_step", "test_dataloader"):
        assert f"Mine.{name}: training does not run it" in str(warning.message)


def test_only_rank_0_warns(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("error", LeftOut)
        check(with_(test_step=lambda self, batch: None)())


def test_names_that_nobody_calls_are_said():
    with pytest.warns(LeftOut, match="did you mean on_train_start"):
        check(with_(on_trian_start=lambda self: None)())
    with pytest.warns(LeftOut, match="nobody calls a data module's"):
        check(Net(), with_(Data, on_train_start=lambda self: None)())


def test_the_datas_transfer_hook_wins_which_is_said():
    def transfer(self, batch, device, dataloader_idx):
        return batch

    module = with_(transfer_batch_to_device=transfer)()
    data = with_(Data, transfer_batch_to_device=transfer)()
    with pytest.warns(LeftOut, match="Mine has one as well, which wins"):
        check(module, data)


def test_hooks_of_modules_within_are_said():
    class Inner(Net):
        def on_train_start(self):
            return None

    module = Net()
    module.inner = Inner()
    with pytest.warns(LeftOut, match=r"within Net \(inner\) nobody calls on_train_start"):
        check(module)


def test_callbacks_that_only_show_are_left_out_and_others_refused():
    displays = [LearningRateMonitor(), RichProgressBar()]
    check(with_(configure_callbacks=lambda self: None)())
    with pytest.warns(LeftOut, match="LearningRateMonitor is left out"):
        check(with_(configure_callbacks=lambda self: displays)())
    needed = [ModelCheckpoint(), EarlyStopping("loss"), Callback()]
    text = refused(with_(configure_callbacks=lambda self: needed)())
    assert "such as ModelCheckpoint: say when to save with CheckpointParams" in text
    assert "such as EarlyStopping: give LeanTrainer monitor=… and patience=…" in text
    assert "such as Callback: put its code into hooks" in text


def test_callbacks_are_asked_for_before_there_is_a_trainer():
    module = with_(configure_callbacks=lambda self: [Callback()] * self.trainer.max_epochs)()
    assert "do without self.trainer in it" in refused(module)


def test_a_class_is_refused_before_there_is_an_instance():
    check_class(Net, "module")
    with pytest.raises(UnsupportedProject, match="on_validation_epoch_end"):
        check_class(with_(validation_epoch_end=lambda self, outputs: None), "module")


def test_where_a_class_is_refused_the_error_has_what_only_the_module_tells_too():
    class Mine(with_(training_step_end=lambda self, outputs: None)):
        def __init__(self, norm=True):
            super().__init__()
            if not norm:
                raise RuntimeError("cannot be made")
            self.norm = torch.nn.BatchNorm1d(2)
            self.automatic_optimization = False

    def said(make):
        settings = {"exact": "world", "strategy": "fsdp2", "accumulate": 2}
        with pytest.raises(UnsupportedProject) as error:
            check_classes(Mine, make=make, settings=settings)
        return str(error.value)

    text = said(Mine)
    assert "6 things have to change" in text
    for words in ("training_step_end", "BatchNorm1d", "fixed tree", "around whole steps"):
        assert words in text
    assert "one thing has to change" in said(lambda: Mine(norm=False))


def test_loaders_that_were_given_are_looked_at_before_there_are_processes():
    plain = Data().train_dataloader()
    check(Net(), exact="world", train=plain)
    assert "several loaders" in refused(Net(), exact="world", train=[plain, plain])
    one_by_one = CombinedLoader([plain, plain], "sequential")
    assert "after the other's" in refused(Net(), train=one_by_one)


def test_a_class_typed_at_a_prompt_is_named_too():
    names = {"Net": Net}
    exec(compile("class Typed(Net):\n    truncated_bptt_steps = 2", "<input>", "exec"), names)
    assert "Typed.truncated_bptt_steps" in refused(names["Typed"]())
