"""A LightningModule that says what to learn, and leaves the steps to its base.

    class Net(LeanModule, loss="cross_entropy"):
        def __init__(self, width=32):
            super().__init__()
            self.save_hyperparameters()
            self.layers = torch.nn.Sequential(…)

        def forward(self, images):
            return self.layers(images)

        def make_optimizer(self):
            return torch.optim.Adam(self.parameters(), lr=1e-3)

It is trained by LeanTrainer and by Lightning's Trainer alike, and any hook may be overridden as in
a LightningModule. What neither of them would call is refused where the class is written.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .losses import LossName, picked_loss
from .overrides import name_of
from .refusals import UnsupportedProject, check_class


@dataclass(frozen=True, kw_only=True)
class Scheduler:
    """When a learning-rate scheduler is stepped, under Lightning's names.

    Attributes:
        scheduler: Of torch, made for the optimizer.
        interval: After optimizer steps, or after epochs.
        frequency: After each so many of them.
        monitor: The logged value that a ReduceLROnPlateau looks at, such as "val_loss".
        strict: Whether training ends with an error where that value was not logged.
    """

    scheduler: LRScheduler
    interval: Literal["epoch", "step"] = "epoch"
    frequency: int = 1
    monitor: str | None = None
    strict: bool = True


class LeanModule(LightningModule):
    """See the module; define `forward` and `make_optimizer`, and pick or define a loss.

    A subclass names its loss as `class Net(LeanModule, loss="mse_loss")`, see `losses`, or defines
    `loss`; or it defines `training_step` itself, and needs neither.

    Raises:
        UnsupportedProject: A class defines what nobody calls; or, when one is made, it has no loss
            or no optimizer.
        Refused: There is no loss of that name.
    """

    _loss: ClassVar[str | None] = None

    def __init_subclass__(cls, *, loss: LossName | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        if loss is not None:
            picked_loss(loss)
            cls._loss = loss
        check_class(cls, "module")

    def __init__(self) -> None:
        super().__init__()
        cls = type(self)
        if cls.training_step is LeanModule.training_step and not (
            cls._loss or cls.loss is not LeanModule.loss
        ):
            raise UnsupportedProject(
                f"{name_of(cls)} has no loss. Write class {cls.__name__}(LeanModule, "
                'loss="cross_entropy"), or define loss(self, outputs, targets).'
            )
        if (
            cls.make_optimizer is LeanModule.make_optimizer
            and cls.configure_optimizers is LeanModule.configure_optimizers
        ):
            raise UnsupportedProject(
                f"{name_of(cls)} has no optimizer. Define make_optimizer(self), which returns "
                "one of torch.optim."
            )

    # What a subclass says

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """Return the loss of a batch, a mean over its samples; the one picked for the class."""
        return picked_loss(self._loss or "")(outputs, targets)

    def measure(self, outputs: Any, targets: Any) -> Mapping[str, Any]:
        """Return what is logged besides the loss: numbers, tensors, torchmetrics objects."""
        return {}

    def divide(self, batch: Any) -> tuple[Any, Any]:
        """Return what `forward` gets of a batch, and the targets; a batch is such a pair here."""
        inputs, targets = batch
        return inputs, targets

    def make_optimizer(self) -> Optimizer:
        """Return the optimizer."""
        raise NotImplementedError("Define make_optimizer(self).")

    def make_scheduler(self, optimizer: Optimizer) -> LRScheduler | Scheduler | None:
        """Return the learning rate's scheduler, stepped after each epoch unless it says more."""
        return None

    # What trainers call

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of a batch; logs it as `train_loss`."""
        return self._step(batch, "train")

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log the mean loss over the validation data as `val_loss`."""
        self._step(batch, "val")

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log the mean loss over the test data as `test_loss`."""
        self._step(batch, "test")

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """Return the outputs for a batch, with or without targets."""
        is_pair = isinstance(batch, list | tuple) and len(batch) == 2
        return self(self.divide(batch)[0] if is_pair else batch)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return what `make_optimizer` and `make_scheduler` do, in Lightning's form."""
        optimizer = self.make_optimizer()
        scheduler = self.make_scheduler(optimizer)
        if scheduler is None:
            return optimizer
        if not isinstance(scheduler, Scheduler):
            scheduler = Scheduler(scheduler=scheduler)
        settings = {name: value for name, value in vars(scheduler).items() if value is not None}
        made = {"optimizer": optimizer, "lr_scheduler": settings}
        return cast(OptimizerLRScheduler, made)

    def _step(self, batch: Any, part: Literal["train", "val", "test"]) -> Tensor:
        inputs, targets = self.divide(batch)
        outputs = self(inputs)
        loss = self.loss(outputs, targets)
        for name, value in {"loss": loss, **self.measure(outputs, targets)}.items():
            self.log(f"{part}_{name}", value, sync_dist=part != "train")
        return loss
