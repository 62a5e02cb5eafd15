"""A Lightning Trainer."""

import logging
import warnings

import torch
from common import data, network, seed
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

warnings.simplefilter("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
seed()


class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(8, 2)

    def training_step(self, batch, index):
        x, y = batch
        loss = torch.nn.functional.cross_entropy(self.net(x), y)
        print(self.current_epoch, index, loss.item(), flush=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.05)


model = Net()
options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
trainer = Trainer(max_epochs=3, accelerator="cpu", enable_model_summary=False, **options)
trainer.fit(model, DataLoader(data(), 8))
print("final", sum(v.double().sum().item() for v in model.state_dict().values()).hex())
