"""What `self.trainer` is on the lean loop: the common attributes, and an error for the others."""

import pytest
import torch
from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader, TensorDataset

from curitorch.external.adapter import LeanTrainer


class Net(LightningModule):
    """Looks at its trainer once."""

    def __init__(self, look):
        super().__init__()
        self.layer, self.look, self.seen = torch.nn.Linear(2, 1), look, None

    def training_step(self, batch, batch_idx):
        if self.global_step == 3:
            self.seen = self.look(self)
        loss = self.layer(batch[0]).pow(2).mean()
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def seen(look, **options):
    net = Net(look)
    data = DataLoader(TensorDataset(torch.randn(8, 2)), 4)
    LeanTrainer(max_epochs=3, accelerator="cpu", **options).fit(net, data, data)
    return net.seen


KNOWN = {
    "global_step": 3,
    "current_epoch": 1,
    "max_epochs": 3,
    "max_steps": -1,
    "world_size": 1,
    "num_devices": 1,
    "num_nodes": 1,
    "global_rank": 0,
    "local_rank": 0,
    "is_global_zero": True,
    "num_training_batches": 2,
    "estimated_stepping_batches": 6,
    "accumulate_grad_batches": 1,
    "gradient_clip_val": None,
    "log_every_n_steps": 50,
    "precision": "32-true",
    "training": True,
    "validating": False,
    "sanity_checking": False,
    "testing": False,
    "should_stop": False,
    "fast_dev_run": False,
    "is_last_batch": True,
    "logger": None,
    "loggers": [],
    "callbacks": [],
    "datamodule": None,
}


def test_common_attributes_are_those_of_a_trainer():
    assert seen(lambda net: {name: getattr(net.trainer, name) for name in KNOWN}) == KNOWN


def test_a_module_finds_itself_its_optimizers_and_its_values():
    def look(net):
        trainer = net.trainer
        return (
            trainer.model is trainer.lightning_module is net,
            trainer.optimizers[0] is net.optimizers(use_pl_optimizer=False),
            net.lr_schedulers(),
            sorted(trainer.callback_metrics),
            trainer.fit_loop.total_batch_idx,
            net.all_gather(torch.ones(1)).tolist(),
            str(net.device),
        )

    assert seen(look) == (True, True, None, ["loss"], 3, [1.0], "cpu")


def test_stopping_from_the_module_is_honoured():
    def stop(net):
        net.trainer.should_stop = True

    net = Net(stop)
    data = DataLoader(TensorDataset(torch.randn(8, 2)), 4)
    trainer = LeanTrainer(max_epochs=9, accelerator="cpu")
    trainer.fit(net, data)
    assert (trainer.global_step, trainer.current_epoch) == (4, 2)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("save_checkpoint", "CheckpointParams"), ("tuner", "lightning.Trainer"), ("test", "Trainer")],
)
def test_what_is_not_there_says_so_and_what_to_do(name, remedy):
    with pytest.raises(AttributeError, match=f"self.trainer.{name} is not available.*{remedy}"):
        seen(lambda net: getattr(net.trainer, name))
