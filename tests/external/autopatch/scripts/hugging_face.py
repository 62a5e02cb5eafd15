"""transformers' Trainer with a tiny BERT: augmentation, accumulation, evaluation, own saves."""

import argparse
import json
import os
import random
import time

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from common import seed
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

parser = argparse.ArgumentParser()
parser.add_argument("--workers", type=int, default=0)
parser.add_argument("--accumulate", type=int, default=1)
parser.add_argument("--rows", type=int, default=40)
parser.add_argument("--options", type=json.loads, default={})
args = parser.parse_args()
rank = os.environ.get("RANK", "0")
seed()
torch.set_num_threads(1)


class Rows(torch.utils.data.Dataset):
    def __init__(self, count):
        self.tokens = torch.randint(5, 50, (count, 6), generator=torch.Generator().manual_seed(7))

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, i):
        tokens = self.tokens[i].clone()
        tokens[random.randrange(6)] = int(torch.randint(5, 50, (1,)))
        labels = int(self.tokens[i].sum() > 165)
        return {"input_ids": tokens, "labels": labels, "number": i}


class Seen(Trainer):
    """Notes which samples it trains on in which epoch."""

    def compute_loss(self, model, inputs, *others, **options):
        numbers = inputs.pop("number").tolist()
        if model.training and (folder := os.environ.get("OUT")):
            epoch = int(self.state.epoch + 1e-6)
            with open(f"{folder}/samples-{rank}", "a") as file:
                file.write("".join(f"{epoch} {each}\n" for each in numbers))
        return super().compute_loss(model, inputs, *others, **options)


class Say(TrainerCallback):
    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero:
            kept = {k: v for k, v in logs.items() if "runtime" not in k and "per_second" not in k}
            print(state.global_step, kept, flush=True)

    def on_step_end(self, args, state, control, **kwargs):
        time.sleep(float(os.environ.get("SLOW", "0")))
        fails = os.environ.get("FAILS", rank) == rank
        if fails and state.global_step == int(os.environ.get("FAILS_AT", "-1")):
            raise KeyError("the user's own")

    def on_epoch_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            print("epoch", state.epoch, flush=True)


print("building\n", end="")  # at once: the ranks have one output
config = BertConfig(
    vocab_size=50,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=8,
)
model = BertForSequenceClassification(config)
options = {
    "num_train_epochs": 3,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": args.accumulate,
    "dataloader_num_workers": args.workers,
    "logging_steps": 2,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 1,
    "report_to": [],
    "use_cpu": True,
    "disable_tqdm": True,
    "remove_unused_columns": False,
}
arguments = TrainingArguments("out", **options | args.options)
trainer = Seen(
    model, arguments, train_dataset=Rows(args.rows), eval_dataset=Rows(8), callbacks=[Say()]
)
trainer.remove_callback(PrinterCallback)  # it prints times
trainer.train()
if trainer.is_world_process_zero():
    total = sum(v.double().sum().item() for v in model.state_dict().values())
    print("final", total.hex(), sorted(os.listdir("out")))
