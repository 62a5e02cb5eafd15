"""A module and a data module that record every call of a hook, with its arguments and where it was.

One line per call, indented as deep as it is called from within another:

    LM.forward(float32[4, 4] 8d1f20) | epoch 0 step 0 train grad training
    fetch 4 5 6 7

Tensors are recorded by their bytes: two equal traces trained on the same data to the same losses.
"""

import functools
import hashlib
import inspect
from enum import Enum

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, Dataset

MODULE = (
    *("prepare_data", "setup", "teardown", "configure_model", "configure_optimizers"),
    *("on_fit_start", "on_fit_end", "on_train_start", "on_train_end"),
    *("on_train_epoch_start", "on_train_epoch_end"),
    *("on_train_batch_start", "on_train_batch_end"),
    *("training_step", "validation_step", "forward"),
    *("backward", "manual_backward", "on_before_backward", "on_after_backward"),
    *("on_before_optimizer_step", "optimizer_step", "on_before_zero_grad", "optimizer_zero_grad"),
    *("configure_gradient_clipping", "clip_gradients", "lr_scheduler_step"),
    *("on_validation_start", "on_validation_end"),
    *("on_validation_epoch_start", "on_validation_epoch_end"),
    *("on_validation_batch_start", "on_validation_batch_end"),
    *("on_validation_model_eval", "on_validation_model_train", "on_validation_model_zero_grad"),
    *("on_save_checkpoint", "on_load_checkpoint", "state_dict", "load_state_dict"),
)
DATA = (
    *("prepare_data", "setup", "teardown", "train_dataloader", "val_dataloader"),
    *("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"),
    *("state_dict", "load_state_dict"),
)


class Trace(list):
    """The lines; None among the recorders means that nothing is recorded."""

    depth = 0

    def call(self, owner, who, name, function, args, kwargs):
        told = [describe(each) for each in args]
        told += [f"{key}={describe(value)}" for key, value in kwargs.items()]
        where = _where(owner) if who == "LM" else ""
        self.append(f"{'  ' * self.depth}{who}.{name}({', '.join(told)}){where}")
        self.depth += 1
        try:
            return function(owner, *args, **kwargs)
        finally:
            self.depth -= 1

    def fetch(self, index):
        if self and self[-1].startswith("fetch"):
            self[-1] += f" {index}"
        else:
            self.append(f"fetch {index}")


def _where(module):
    trainer = module._trainer
    if trainer is None:
        return ""
    modes = ("training", "validating", "sanity_checking")
    stage = [mode for mode in modes if getattr(trainer, mode)]
    grad = "grad" if torch.is_grad_enabled() else "no grad"
    mode = "train" if module.training else "eval"
    place = f"epoch {module.current_epoch} step {module.global_step}"
    return f" | {place} {mode} {grad} {' '.join(stage)}"


def describe(value):
    if isinstance(value, torch.Tensor):
        content = value.detach().contiguous().numpy().tobytes()
        kind = str(value.dtype).removeprefix("torch.")
        return f"{kind}{list(value.shape)} {hashlib.sha256(content).hexdigest()[:6]}"
    if isinstance(value, dict):
        if "state_dict" in value and "loops" in value:
            return "the checkpoint"
        if len(value) > 4 or any("." in str(key) for key in value):
            return "{" + ", ".join(map(str, value)) + "}"
        return "{" + ", ".join(f"{k}: {describe(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "(" + ", ".join(describe(each) for each in value) + ")"
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, torch.optim.Optimizer | LRScheduler):
        return type(value).__name__
    return "closure" if callable(value) else str(value)


def recording(base, who, names):
    """Return a subclass of `base` whose calls of `names` go to its instances' `trace`."""

    def recorded(name, function):
        @functools.wraps(function)
        def call(self, *args, **kwargs):
            trace = vars(self).get("trace")
            if trace is None:
                return function(self, *args, **kwargs)
            return trace.call(self, who, name, function, args, kwargs)

        del call.__wrapped__  # by which Lightning would know that the hook is not overridden
        call.__signature__ = inspect.signature(function)
        return call

    return type(
        base.__name__, (base,), {name: recorded(name, getattr(base, name)) for name in names}
    )


class Samples(Dataset):
    def __init__(self, count, seed, trace):
        generator = torch.Generator().manual_seed(seed)
        self.inputs = torch.randn(count, 4, generator=generator)
        self.trace = trace

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        if self.trace is not None:
            self.trace.fetch(int(index))
        return self.inputs[index], self.inputs[index].argmax() % 3


class Data(LightningDataModule):
    def __init__(self, trace, *, samples=10, validations=(5,), batch=2, shuffle=False):
        super().__init__()
        self.trace = trace
        self.settings = (samples, validations, batch, shuffle)

    def train_dataloader(self):
        samples, _, batch, shuffle = self.settings
        return DataLoader(Samples(samples, 0, self.trace), batch_size=batch, shuffle=shuffle)

    def val_dataloader(self):
        _, validations, batch, _ = self.settings
        loaders = [
            DataLoader(Samples(count, number + 1, self.trace), batch_size=batch)
            for number, count in enumerate(validations)
        ]
        return loaders[0] if len(loaders) == 1 else loaders

    def state_dict(self):
        return {"of": "the data"}


class Model(LightningModule):
    """A classifier with a schedule by step and one by epoch; `kind` says what else it does."""

    def __init__(self, trace, kind=""):
        super().__init__()
        self.trace = trace
        self.kind = kind
        self.automatic_optimization = "manual" not in kind
        self.layer = nn.Linear(4, 3)
        self.other = nn.Linear(4, 3)

    def forward(self, inputs):
        return self.layer(inputs) + 0.1 * self.other(inputs)

    def loss(self, batch):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        if "logs" in self.kind:
            self.log("loss", loss, on_epoch=True)
        if "manual" in self.kind:
            for optimizer in self.optimizers() if "two" in self.kind else [self.optimizers()]:
                optimizer.zero_grad()
                self.manual_backward(self.loss(batch))
                self.clip_gradients(optimizer, 0.5, "norm")
                optimizer.step()
            if "schedules" in self.kind:
                self.lr_schedulers().step()
            return None
        if "skips" in self.kind and batch_idx == 1:
            return None
        return {"loss": loss, "more": loss.detach() * 2} if "mapping" in self.kind else loss

    def on_train_batch_start(self, batch, batch_idx):
        return -1 if "leaves" in self.kind and batch_idx == 3 else None

    def on_train_epoch_end(self):
        if "stops" in self.kind and self.current_epoch == 1:
            self.trainer.should_stop = True

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if "halts" in self.kind and self.current_epoch == 1 and batch_idx == 2:
            self.trainer.should_stop = True

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("val_loss", self.loss(batch), add_dataloader_idx="several" in self.kind)

    def on_validation_batch_start(self, batch, batch_idx, dataloader_idx=0):
        pass

    def on_validation_batch_end(self, outputs, batch, batch_idx, dataloader_idx=0):
        pass

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.layer.parameters(), lr=0.1, momentum=0.9)
        if "two" in self.kind:
            return [optimizer, torch.optim.Adam(self.other.parameters(), lr=0.01)]
        if "schedules" not in self.kind:
            return optimizer
        if "manual" in self.kind:
            return [optimizer], [StepLR(optimizer, 2)]
        return (
            [optimizer],
            [
                {"scheduler": StepLR(optimizer, 2), "interval": "step"},
                {"scheduler": StepLR(optimizer, 1), "interval": "epoch", "frequency": 2},
                {"scheduler": ReduceLROnPlateau(optimizer, patience=0), "monitor": "val_loss"},
            ],
        )


class ModelWithData(Model):
    """The loaders and the transfer are the module's own."""

    def __init__(self, trace, kind="", **data):
        super().__init__(trace, kind)
        self.data = [Data(trace, **data)]  # in a list, for it is no part of the model

    def train_dataloader(self):
        return self.data[0].train_dataloader()

    def val_dataloader(self):
        return self.data[0].val_dataloader()


RecordingModel = recording(Model, "LM", MODULE)
RecordingData = recording(Data, "DM", DATA)
RecordingModelWithData = recording(
    ModelWithData,
    "LM",
    (*MODULE, *(name for name in DATA if name not in MODULE)),
)
