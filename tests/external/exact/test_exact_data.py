"""The drop-in: any Trainer, any data, one function; and what it says where it cannot be exact."""

import re
import subprocess
import sys

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, TensorDataset
from torchmetrics import Metric, SumMetric

from curitorch.external.exact.exact_data import exact_data
from curitorch.external.exact.exact_resume import KEY, ExactResume, install
from curitorch.external.exact.gradient_order import keep_buckets
from curitorch.external.exact.sampling import GlobalBatchSampler
from curitorch.external.refused import Refused
from curitorch.external.schema import UnreadableFile

DATA = TensorDataset(torch.arange(20.0))


class Net(LightningModule):
    def __init__(self, **metrics):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.metrics = torch.nn.ModuleDict(metrics)
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch_idx, batch[0].tolist()))
        for metric in self.metrics.values():
            metric.update(batch[0].sum())
        loss = (self.weight * batch[0]).mean() + torch.rand(())
        self.log("mean", loss, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val", torch.rand(()))

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Stream(IterableDataset):
    """Each process's part of it, it says."""

    def __iter__(self):
        return iter(DATA)


class Data(LightningDataModule):
    """A user's own, with hooks, settings and a state."""

    def __init__(self, batch_size=5):
        super().__init__()
        self.save_hyperparameters()
        self.stages, self.loaded = [], None

    def setup(self, stage):
        self.stages.append(stage)

    def train_dataloader(self):
        return DataLoader(DATA, self.hparams.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(DATA, 10)

    def test_dataloader(self):
        return DataLoader(DATA, 10)

    def state_dict(self):
        return {"kept": 7}

    def load_state_dict(self, state):
        self.loaded = state


def trainer(folder, **options):
    saver = ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)
    return Trainer(
        **{"max_epochs": 2, "accelerator": "cpu", "callbacks": [saver], **options},
        logger=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip


def test_a_data_module_stays_itself(tmp_path):
    data = Data()
    assert exact_data(data) is data
    trainer(tmp_path).fit(Net(), data)
    assert data.stages == ["fit"]
    content = torch.load(tmp_path / "step=5.ckpt", weights_only=True)
    assert content["Data"] == {"kept": 7}
    assert content["datamodule_hyper_parameters"] == {"batch_size": 5}
    again = exact_data(Data())
    trainer(tmp_path / "again").fit(Net(), again, ckpt_path=tmp_path / "step=5.ckpt")
    assert again.loaded == {"kept": 7}


def test_loaders_tuples_dicts_and_models_are_data(tmp_path):
    class WithLoaders(Net):
        def train_dataloader(self):
            return DataLoader(DATA, 5)

    loader, model = DataLoader(DATA, 5), WithLoaders()
    for data in (loader, (loader, loader), {"train": loader, "val": loader}, model):
        net = model if data is model else Net()
        trainer(tmp_path, max_epochs=1, enable_checkpointing=False, callbacks=[]).fit(
            net, exact_data(data)
        )
        assert [samples for _, _, samples in net.seen] == [
            [*map(float, range(start, start + 5))] for start in (0, 5, 10, 15)
        ]
    with pytest.raises(Refused, match="returned a int"):
        exact_data(3)


def test_the_batch_counts_the_samples_of_one_optimizer_step(tmp_path):
    net = Net()
    trainer(tmp_path, max_epochs=1, accumulate_grad_batches=2).fit(
        net, exact_data(Data(), batch_size=8)
    )
    assert [len(samples) for _, _, samples in net.seen] == [4] * 5


def test_one_data_module_serves_trainer_after_trainer(tmp_path):
    data, seen = exact_data(Data(), seed=2), []
    for number in range(2):
        net, fitting = Net(), trainer(tmp_path / str(number))
        fitting.fit(net, data)
        fitting.validate(net, data, verbose=False)
        fitting.test(net, data, verbose=False)
        assert sum(isinstance(callback, ExactResume) for callback in fitting.callbacks) == 1
        seen.append((net.seen, net.weight.item()))
    assert seen[0] == seen[1]


def test_a_trainer_fits_again_from_where_it_ended(tmp_path):
    net, data, fitting = Net(), exact_data(Data(), seed=2), trainer(tmp_path)
    fitting.fit(net, data)
    fitting.fit_loop.max_epochs = 3
    fitting.fit(net, data)
    whole = Net()
    trainer(tmp_path / "whole", max_epochs=3).fit(whole, exact_data(Data(), seed=2))
    assert (net.seen, net.weight) == (whole.seen, whole.weight)


@pytest.mark.parametrize(
    "saving",
    [
        {"every_n_train_steps": 6},
        {"save_on_train_epoch_end": True},
        {"save_last": True, "save_top_k": 0, "every_n_train_steps": 50},
    ],
)
def test_a_longer_training_goes_on_where_a_limit_of_steps_ended_it(saving, tmp_path):
    whole, begun, rest = Net(), Net(), Net()
    trainer(tmp_path / "whole").fit(whole, exact_data(Data()))
    saver = ModelCheckpoint(tmp_path / "begun", **saving)
    trainer(tmp_path, max_epochs=-1, max_steps=6, callbacks=[saver]).fit(begun, exact_data(Data()))
    [file] = (tmp_path / "begun").iterdir()
    trainer(tmp_path / "rest").fit(rest, exact_data(Data()), ckpt_path=file)
    assert begun.seen + rest.seen == whole.seen
    assert rest.weight == whole.weight


def test_overfitting_sees_the_same_batches_in_each_epoch(tmp_path):
    net = Net()
    trainer(tmp_path, overfit_batches=2).fit(net, exact_data(Data()))
    first, second = net.seen[:2], net.seen[2:]
    assert [samples for _, _, samples in first] == [samples for _, _, samples in second]


def test_another_order_of_samples_is_said(tmp_path):
    trainer(tmp_path).fit(Net(), exact_data(Data(), seed=1))
    with pytest.warns(UserWarning, match=r"trained in: seed=1 is 2 now\. The resume is not exact"):
        trainer(tmp_path / "a").fit(
            Net(), exact_data(Data(), seed=2), ckpt_path=tmp_path / "step=3.ckpt"
        )
    with pytest.warns(UserWarning, match=r"trained in: batch_size=5 is 4 now"):
        trainer(tmp_path / "b").fit(
            Net(), exact_data(Data(4), seed=1), ckpt_path=tmp_path / "step=3.ckpt"
        )


@pytest.mark.parametrize("data", [DATA, Stream()], ids=["sampler", "stream"])
def test_an_order_of_the_users_own_on_other_processes_is_said(data, tmp_path):
    is_stream = isinstance(data, IterableDataset)
    sampler = None if is_stream else DistributedSampler(data, 1, 0)
    loader = DataLoader(data, 5, sampler=sampler)
    trainer(tmp_path).fit(Net(), exact_data(loader))
    content = torch.load(tmp_path / "step=3.ckpt", weights_only=True)
    content[KEY]["order"]["processes"] = 2
    torch.save(content, tmp_path / "others.ckpt")
    with pytest.warns(UserWarning, match=r"processes=2 is 1 now\. .* may repeat or leave out"):
        trainer(tmp_path / "a").fit(Net(), exact_data(loader), ckpt_path=tmp_path / "others.ckpt")


def test_metrics_that_are_not_there_any_more_are_named(tmp_path):
    trainer(tmp_path).fit(Net(old=SumMetric(), kept=SumMetric()), exact_data(Data()))
    net = Net(new=SumMetric(), kept=SumMetric())
    with pytest.warns(UserWarning, match=r"metrics that the model has not: metrics\.old\."):
        trainer(tmp_path / "a").fit(net, exact_data(Data()), ckpt_path=tmp_path / "step=7.ckpt")
    assert net.metrics["kept"].compute() == 2 * sum(range(20))
    assert net.metrics["new"].compute() < sum(range(20))
    assert "metrics.kept.sum_value" not in net.state_dict()  # its keys are as they were


class Odd(Metric):
    """Keeps what no checkpoint holds."""

    def __init__(self):
        super().__init__()
        self.add_state("seen", [])

    def _apply(self, *_, **__):
        return self  # as metrics do that keep more than tensors

    def update(self, value):
        self.seen.append(re.compile(str(value)))

    def compute(self):
        return torch.tensor(float(len(self.seen)))


def test_a_metric_whose_state_is_no_plain_data_counts_anew_and_says_so(tmp_path):
    with pytest.warns(UserWarning, match=r"'metrics\.odd' keeps a re\.Pattern"):
        trainer(tmp_path).fit(Net(odd=Odd()), exact_data(Data()))
    net = Net(odd=Odd())
    trainer(tmp_path / "a").fit(net, exact_data(Data()), ckpt_path=tmp_path / "step=7.ckpt")
    assert net.metrics["odd"].compute() == 1


def test_validation_by_the_clock_is_said(tmp_path):
    with pytest.warns(UserWarning, match="depends on the clock"):
        trainer(tmp_path, val_check_interval="00:01:00:00").fit(Net(), exact_data(Data()))


def test_a_hook_that_comes_after_lightnings_own_saves_is_said(tmp_path):
    class WithHook(Net):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            pass

    with pytest.warns(UserWarning, match=r"before .*WithHook's own hook of that name"):
        trainer(tmp_path).fit(WithHook(), exact_data(Data()))


def test_a_file_saved_in_the_middle_of_a_batch_is_said(tmp_path):
    class Saving(Net):
        def training_step(self, batch, batch_idx):
            if self.global_step == 2:
                self.trainer.save_checkpoint(tmp_path / "amid.ckpt")
            return super().training_step(batch, batch_idx)

    trainer(tmp_path).fit(Saving(), exact_data(Data()))
    with pytest.warns(UserWarning, match="saved in the middle of a batch"):
        trainer(tmp_path / "a").fit(Net(), exact_data(Data()), ckpt_path=tmp_path / "amid.ckpt")


def test_a_file_of_a_newer_curitorch_is_refused(tmp_path):
    trainer(tmp_path).fit(Net(), exact_data(Data()))
    content = torch.load(tmp_path / "step=3.ckpt", weights_only=True)
    content[KEY]["schema"] = 99
    torch.save(content, tmp_path / "newer.ckpt")
    with pytest.raises(UnreadableFile, match=r"has schema 99, this curitorch reads up to 1"):
        trainer(tmp_path / "a").fit(Net(), exact_data(Data()), ckpt_path=tmp_path / "newer.ckpt")


def test_without_exact_data_the_callback_leaves_generators_alone(tmp_path):
    seen = []
    for with_callback in (False, True):
        net, fitting = Net(), trainer(tmp_path / str(with_callback))
        if with_callback:
            install(fitting)
        torch.manual_seed(3)
        fitting.fit(net, DataLoader(DATA, 5, shuffle=True), DataLoader(DATA, 5))
        seen.append((net.seen, fitting.callback_metrics["mean_epoch"]))
    assert seen[0] == seen[1]


def test_three_processes_keep_their_buckets_unless_told_otherwise():
    def of(strategy):
        made = trainer(None, strategy=strategy)
        made.__class__ = type("Three", (Trainer,), {"world_size": 3})
        return made

    plain = of(DDPStrategy())
    keep_buckets(plain)
    assert plain.strategy._ddp_kwargs == {"find_unused_parameters": True}
    for told in ({"find_unused_parameters": False}, {"static_graph": True}):
        with pytest.warns(UserWarning, match="differs in the last bits"):
            keep_buckets(of(DDPStrategy(**told)))
    alone = trainer(None, strategy=DDPStrategy())
    keep_buckets(alone)
    assert alone.strategy._ddp_kwargs == {}


def test_torchdatas_loader_is_entered_by_its_own_state(tmp_path):
    reason = "torchdata, which is no dependency, is not installed"
    stateful = pytest.importorskip("torchdata.stateful_dataloader", reason=reason)
    whole, rest = Net(), Net()
    for net, folder, resume in ((whole, "a", None), (rest, "b", tmp_path / "a/step=3.ckpt")):
        loader = stateful.StatefulDataLoader(DATA, 5, shuffle=True, num_workers=2)
        trainer(tmp_path / folder).fit(net, exact_data(loader), ckpt_path=resume)
    assert rest.seen == whole.seen[3:]
    assert rest.weight == whole.weight


def test_a_training_sampler_is_ours(tmp_path):
    fitting = trainer(tmp_path, max_epochs=1)
    fitting.fit(Net(), exact_data(Data()))
    assert isinstance(fitting.train_dataloader.batch_sampler, GlobalBatchSampler)


def test_nothing_of_lightning_is_imported_with_the_name_of_the_callback():
    code = "import sys, curitorch.external.stores; print('lightning' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
