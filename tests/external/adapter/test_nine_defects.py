"""Nine ways in which another adapter was wrong without a word, each of which ours must not be."""

import os
import subprocess
import sys
from collections import Counter

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch.utils.data import DataLoader

from curitorch.external.adapter import LeanTrainer
from curitorch.external.adapter.refusals import UnsupportedProject
from curitorch.external.journal import read_journal

pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")


class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).pow(2).mean()

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.layer(batch).pow(2).mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def loader(samples=12, batch_size=4):
    x = torch.randn(samples, 2, generator=torch.Generator().manual_seed(1))
    return DataLoader(x, batch_size)


def fit(module, *data, **options):
    trainer = LeanTrainer(**{"max_epochs": 1, "accelerator": "cpu", **options})
    trainer.fit(module, *(data or (loader(), loader())))
    return trainer


RANKS = """
import os
import torch
from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader
from curitorch.external.adapter import LeanTrainer
from curitorch.external.groups import groups_left

class Net(LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(2, 1)
    def training_step(self, batch, batch_idx):
        return self.layer(batch).pow(2).mean()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

data = torch.randn(32, 2, generator=torch.Generator().manual_seed(1))
module = Net()
with groups_left():
    LeanTrainer(max_epochs=1, accelerator="cpu", batch_size=8).fit(module, DataLoader(data, 8))
torch.save(module.state_dict(), os.environ.get("RANK", "alone") + ".pt")
"""


def test_1_gradients_of_all_processes_are_averaged(tmp_path, monkeypatch):
    (tmp_path / "ranks.py").write_text(RANKS)
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "ranks.py"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", *launch],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(tmp_path)
    exec(RANKS, {})  # one process, on the same batches
    first, second, alone = (torch.load(f"{name}.pt") for name in ("0", "1", "alone"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.allclose(first[name], alone[name], atol=1e-6) for name in first)


def test_2_mixed_precision_is_on_in_the_step_of_a_single_process():
    seen = []

    class Mine(Net):
        def training_step(self, batch, batch_idx):
            seen.append((torch.is_autocast_enabled("cpu"), self.layer(batch).dtype))
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            seen.append((torch.is_autocast_enabled("cpu"), self.layer(batch).dtype))

    fit(Mine(), precision="bf16-mixed", num_sanity_val_steps=0)
    assert seen == [(True, torch.bfloat16)] * 6


def test_3_each_batch_begins_once_and_ends_once():
    calls = Counter()

    class Mine(Net):
        def on_train_batch_start(self, batch, batch_idx):
            calls["start"] += 1
            return -1 if batch_idx == 2 else None

        def on_train_batch_end(self, outputs, batch, batch_idx):
            calls["end"] += 1
            calls["with a loss"] += "loss" in outputs

    trainer = fit(Mine(), loader(20), max_epochs=2)
    assert trainer.global_step == 4  # -1 ended both epochs before their third batch
    assert calls == {"start": 6, "end": 4, "with a loss": 4}


def test_4_logged_tensors_arrive(tmp_path):
    class Mine(Net):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.log("train_loss", loss)
            self.log("three", torch.tensor(3))
            return loss

    trainer = fit(Mine(), default_root_dir=tmp_path, log_every_n_steps=1)
    assert float(trainer.callback_metrics["three"]) == 3
    events = [e for e in read_journal(tmp_path / "journal.jsonl") if e["event"] == "metric"]
    steps = [event for event in events if "train_loss" in event["metrics"]]
    assert [event["step"] for event in steps] == [1, 2, 3]
    assert all(event["metrics"]["three"] == 3 for event in steps)


ONCE_IGNORED = [
    "on_train_start",
    "on_train_end",
    "on_validation_start",
    "on_validation_end",
    "on_before_backward",
    "on_before_optimizer_step",
    "configure_gradient_clipping",
    "on_before_batch_transfer",
    "on_after_batch_transfer",
    "on_validation_model_eval",
    "on_validation_model_train",
    "on_fit_start",
    "on_fit_end",
    "setup",
    "teardown",
    "prepare_data",
]


def test_5_no_hook_is_ignored(tmp_path):
    calls = Counter()

    def counting(name):
        original = getattr(Net, name)

        def hook(self, *arguments, **options):
            calls[name] += 1
            return original(self, *arguments, **options)

        return hook

    class Data(LightningDataModule):
        def prepare_data(self):
            calls["data's prepare_data"] += 1

        def setup(self, stage):
            calls["data's setup"] += 1

        def train_dataloader(self):
            return loader()

        def val_dataloader(self):
            return loader()

        def teardown(self, stage):
            calls["data's teardown"] += 1

        def state_dict(self):
            calls["data's state_dict"] += 1
            return {"of data": 1}

    module = type("Mine", (Net,), {name: counting(name) for name in ONCE_IGNORED})()
    fit(module, None, None, Data(), default_root_dir=tmp_path)
    [path] = tmp_path.rglob("model.ckpt")
    assert torch.load(path, weights_only=True)[Data.__qualname__] == {"of data": 1}
    assert {name for name in ONCE_IGNORED if not calls[name]} == set()
    assert {f"data's {name}" for name in ("prepare_data", "setup", "teardown")} <= set(calls)
    ended = type("Mine", (Net,), {"training_epoch_end": lambda self, outputs: None})()
    with pytest.raises(UnsupportedProject, match="on_train_epoch_end"):
        fit(ended)


def test_6_a_frequency_is_honoured_or_said():
    class OfScheduler(Net):
        rates: list

        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
            settings = {"scheduler": scheduler, "interval": "step", "frequency": 2}
            return {"optimizer": optimizer, "lr_scheduler": settings}

        def on_train_batch_end(self, outputs, batch, batch_idx):
            self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])

    module = OfScheduler()
    module.rates = []
    fit(module, loader(20))
    assert module.rates == [0.1, 0.05, 0.05, 0.025, 0.025]

    class OfOptimizer(Net):
        def configure_optimizers(self):
            return [{"optimizer": super().configure_optimizers(), "frequency": 2}]

    with pytest.warns(RuntimeWarning, match=r"\['frequency'\], which nobody reads"):
        fit(OfOptimizer())


def test_7_manual_optimisation_works():
    class Mine(Net):
        automatic_optimization = False

        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            first, second = self.optimizers()
            for optimizer in (first, second):
                optimizer.zero_grad()
                self.manual_backward(self.layer(batch).pow(2).mean())
                optimizer.step()

        def configure_optimizers(self):
            return [torch.optim.SGD(self.parameters(), lr=0.1) for _ in range(2)]

    module = Mine()
    before = module.layer.weight.clone()
    trainer = fit(module)
    assert trainer.global_step == 6  # two steps of three batches
    assert not torch.equal(before, module.layer.weight)


def test_8_every_option_of_log_is_taken():
    class Mine(Net):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.log(
                "loss",
                loss,
                prog_bar=True,
                logger=False,
                on_step=True,
                on_epoch=True,
                reduce_fx="mean",
                enable_graph=False,
                sync_dist=True,
                sync_dist_group=None,
                add_dataloader_idx=False,
                batch_size=4,
                rank_zero_only=False,
            )
            self.log("most", loss, on_step=False, on_epoch=True, reduce_fx=torch.max)
            return loss

    trainer = fit(Mine())
    metrics = trainer.callback_metrics
    assert {"loss", "loss_step", "loss_epoch", "most", "val_loss"} == set(metrics)
    assert float(metrics["most"]) > float(metrics["loss_epoch"])


def test_9_nothing_is_kept_on_the_class():
    seen = []

    class Mine(Net):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            seen.append((self.current_epoch, self.global_step))

        def on_validation_batch_end(self, outputs, batch, batch_idx):
            seen.append(("validation", self.global_step))

    attributes = dict(vars(Mine))
    one, other = Mine(), Mine()
    fit(one, num_sanity_val_steps=0, accumulate_grad_batches=2, limit_val_batches=1)
    # Optimizer steps, not batches: the last batch of an epoch makes one of its own.
    assert seen == [(0, 0), (0, 1), (0, 2), ("validation", 2)]
    assert dict(vars(Mine)) == attributes
    assert (other.global_step, other.current_epoch, other._trainer) == (0, 0, None)
    fit(other, max_epochs=2)
    assert (one.global_step, other.global_step) == (2, 6)
