"""Precisions and clipping: bit for bit those of Lightning's Trainer, scaled gradients included."""

import pytest
import torch
import torchmetrics
from lightning.fabric.plugins import MixedPrecision as FabricMixedPrecision
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch.utils.data import DataLoader, TensorDataset

from curitorch.external.adapter import LeanTrainer
from curitorch.external.exact.exact_data import exact_data
from curitorch.params import CheckpointParams


class Net(LightningModule):
    """Two layers, the first one used twice; notes what it sees."""

    def __init__(self, fused=False):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.last = torch.nn.Linear(4, 4), torch.nn.Linear(4, 1)
        self.fused, self.seen = fused, []

    def training_step(self, batch, batch_idx):
        output = self.layer(torch.tanh(self.layer(batch[0])))
        self.seen.append((torch.is_autocast_enabled("cpu"), output.dtype, batch[0].dtype))
        return self.last(output).float().pow(2).mean()

    def on_before_optimizer_step(self, optimizer):
        self.seen.append(str(self.layer.weight.grad.norm()))  # nan is not nan

    def validation_step(self, batch, batch_idx):
        self.seen.append(("validation", self.layer(batch[0]).dtype))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.3, fused=self.fused)


def loader():
    data = torch.randn(12, 4, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(data), 4)


def both(**options):
    """Train twice; returns our module and theirs."""
    plugins = options.pop("plugins", (None, None))
    ours, theirs = Net(), Net()
    LeanTrainer(max_epochs=2, accelerator="cpu", plugins=plugins[0], **options).fit(
        ours, loader(), loader()
    )
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        plugins=plugins[1],
        **options,
    )
    trainer.fit(theirs, exact_data((loader(), loader())))
    return ours, theirs


def scaled(scale=2.0**16):
    """Return the plugins of float16 on a CPU, which Lightning itself would not choose."""
    return tuple(
        [plugin("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))]
        for plugin in (FabricMixedPrecision, MixedPrecision)
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "options",
    [
        {"precision": "32-true"},
        {"precision": 32},
        {"precision": "bf16-mixed"},
        {"precision": "16-mixed"},  # bfloat16 on a CPU, as Lightning has it
        {"precision": "64-true"},
        {"precision": "bf16-true"},
        {"gradient_clip_val": 0.05},
        {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
        {"precision": "bf16-mixed", "gradient_clip_val": 0.05, "accumulate_grad_batches": 2},
        {"plugins": "scaled"},
        {"plugins": "scaled", "gradient_clip_val": 0.05},
        {"plugins": "overflowing"},
    ],
    ids=str,
)
def test_a_precision_gives_the_bits_of_lightnings_trainer(options):
    options = dict(options)
    if options.get("plugins") == "scaled":
        options["plugins"] = scaled()
    if options.get("plugins") == "overflowing":
        options["plugins"] = scaled(2.0**30)  # the first steps are left out
    ours, theirs = both(**options)
    assert ours.seen == theirs.seen
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))


def test_mixed_precision_is_entered_on_a_single_device():
    ours, _ = both(precision="bf16-mixed")
    assert ours.seen[0] == ("validation", torch.bfloat16)
    assert (True, torch.bfloat16, torch.float32) in ours.seen


@pytest.mark.filterwarnings("ignore")
def test_a_gradient_scaler_travels_with_checkpoints(tmp_path):
    def fit(net, **options):
        plugin = scaled(2.0**30)[0]
        policy = CheckpointParams(every_n_steps=1, every_n_epochs=None, keep=0)
        trainer = LeanTrainer(
            accelerator="cpu", plugins=plugin, store=tmp_path, checkpoint=policy, **options
        )
        trainer.fit(net, loader(), loader(), ckpt_path="last")
        return plugin[0].scaler.get_scale()

    whole, resumed = Net(), Net()
    scale = fit(whole, max_epochs=2)
    for step in (4, 5, 6):
        for file in (tmp_path / f"step-{step:08d}").iterdir():
            file.unlink()
        (tmp_path / f"step-{step:08d}.json").unlink()
    assert fit(resumed, max_epochs=2) == scale < 2.0**30
    assert all(map(torch.equal, whole.parameters(), resumed.parameters()))


class Measured(Net):
    """Logs metrics and values of several types; notes what was shown."""

    def __init__(self):
        super().__init__()
        self.highest, self.mean = torchmetrics.MaxMetric(), torchmetrics.MeanMetric()

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.highest(loss)
        self.mean(loss)
        both = {"on_step": True, "on_epoch": True}
        self.log_dict({"highest": self.highest, "mean": self.mean, "loss": loss}, **both)
        self.log_dict({"number": 0.1, "single": loss.float(), "short": loss.bfloat16()}, **both)
        return loss

    def on_train_batch_end(self, outputs, batch, batch_idx):
        shown = self.trainer.callback_metrics
        self.seen.append({n: (str(v.dtype), float(v).hex()) for n, v in shown.items()})
        self.seen.append([str(each.dtype) for each in (self.highest, self.mean)])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_metrics_and_logged_values_keep_their_types_over_a_resume(tmp_path, precision):
    def fit(net, path=None):
        policy = CheckpointParams(every_n_steps=1, every_n_epochs=None, keep=0)
        LeanTrainer(
            max_epochs=2, accelerator="cpu", precision=precision, num_sanity_val_steps=0,
            enable_progress_bar=False, checkpoint=policy, store=None if path else tmp_path,
        ).fit(net, loader(), ckpt_path=path)  # fmt: skip
        return net.seen

    whole = fit(Measured())
    for step in (1, 2, 3, 4):
        resumed = fit(Measured(), tmp_path / f"step-{step:08d}" / "model.ckpt")
        assert resumed == whole[-len(resumed) :]
        assert len(resumed) == (6 - step) * 4


def test_an_optimizer_that_unscales_by_itself_cannot_be_clipped():
    trainer = LeanTrainer(
        max_epochs=1, accelerator="cpu", plugins=scaled()[0], gradient_clip_val=1.0
    )
    with pytest.raises(RuntimeError, match="Leave out fused=True"):
        trainer.fit(Net(fused=True), loader(), loader())
