"""transformers' Trainer with a tiny model."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from common import finish, seed
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

seed()


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.2), nn.Linear(16, 2))

    def forward(self, x, labels=None):
        logits = self.layers(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Rows(torch.utils.data.Dataset):
    def __init__(self):
        self.x = torch.randn(64, 8, generator=torch.Generator().manual_seed(7))

    def __len__(self):
        return 64

    def __getitem__(self, i):
        return {"x": self.x[i], "labels": int(self.x[i].sum() > 0)}


class Say(TrainerCallback):
    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            print(state.global_step, logs["loss"], flush=True)


arguments = TrainingArguments(
    "out",
    num_train_epochs=3,
    per_device_train_batch_size=8,
    gradient_accumulation_steps=2,
    logging_steps=3,
    save_strategy="no",
    report_to=[],
    use_cpu=True,
    disable_tqdm=True,
)
model = Tiny()
trainer = Trainer(model, arguments, train_dataset=Rows(), callbacks=[Say()])
trainer.train()
total = sum(v.double().sum().item() for v in model.state_dict().values())
print("final", total.hex())
