"""Trainings of many kinds by plain Lightning, which shall not notice that they were interrupted.

`fit` trains one case, from a checkpoint if there is one, and returns everything that can be
compared. Nothing of curitorch takes part but the callback and `exact_data`. As a program, in each
of several processes, it trains, resumes and compares: resume_matrix.py FOLDER CASE…
"""

import logging
import sys
import warnings
from datetime import timedelta
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers.logger import Logger
from matrix_cases import RANKS_CASES
from matrix_data import RANK, RANKS, data_of
from matrix_net import Net, NetWithBatchEnd

from curitorch.external.exact.exact_data import exact_data
from curitorch.external.exact.exact_resume import KEY
from curitorch.external.groups import groups_left
from curitorch.external.stores import LocalStore, PeriodicCheckpoint
from curitorch.params import CheckpointParams


class Recorder(Logger, Callback):
    """Remembers all that is logged or noted; a checkpoint says how much that was."""

    def __init__(self):
        super().__init__()
        self.entries, self.before_validation = [], 0

    name = version = "recorder"

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        self.entries.append((step, dict(metrics)))

    def on_validation_start(self, trainer, module):
        self.before_validation = len(self.entries)

    def state_dict(self):
        return {"entries": len(self.entries), "before_validation": self.before_validation}


def fit(case, *, savers=(), resume=None, net_class=NetWithBatchEnd, **changes):
    """Train `case`, perhaps from a checkpoint; return what became of it, for comparing."""
    quiet()
    case = {"data": "plain", "validation": 1, **case, **changes}
    seed_everything(1, verbose=False)
    net, recorder = net_class(**case.get("net", {})), Recorder()
    train = data_of(case["data"], **case.get("loader", {}))
    options = case.get("loader", {})
    validation = [
        data_of(
            "plain",
            augmented=options.get("augmented", False),
            workers=options.get("workers", 0),
            persistent=options.get("persistent", False),
        )
        for _ in range(case["validation"])
    ]
    more = case.get("callbacks", list)()
    trainer = Trainer(
        **{
            "max_epochs": 2, "log_every_n_steps": 1, "accelerator": "cpu", "devices": RANKS,
            "enable_progress_bar": False, "enable_model_summary": False,
            "enable_checkpointing": any(isinstance(each, ModelCheckpoint) for each in savers),
            "num_sanity_val_steps": 1,
            **case.get("trainer", {}),
        },
        callbacks=[recorder, *more, *savers],
        logger=recorder,
    )  # fmt: skip
    data = {"train": train, **({"val": validation} if validation else {})}
    trainer.fit(net, exact_data(data, seed=3), ckpt_path=resume)
    return outcome(trainer, recorder)


def outcome(trainer, recorder):
    return {
        "step": trainer.global_step,
        "epoch": trainer.current_epoch,
        "weights": {k: v.clone() for k, v in trainer.lightning_module.state_dict().items()},
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "schedulers": [c.scheduler.state_dict() for c in trainer.lr_scheduler_configs],
        "metrics": {k: float(v) for k, v in trainer.callback_metrics.items()},
        "entries": recorder.entries,
    }


def same(one, other):
    """Compare bitwise whatever is nested in lists and dictionaries."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and one.equal(other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or (one != one and other != other)


def differences(whole, resumed, checkpoint):
    """Return what the resumed training did otherwise than the whole one did from there on."""
    content = torch.load(checkpoint, weights_only=True)
    is_repeated = content[KEY]["moment"] == "validation"
    begun = content["callbacks"]["Recorder"]["before_validation" if is_repeated else "entries"]
    expected = {**whole, "entries": whole["entries"][begun:]}
    found = {**resumed, "entries": [e for e in resumed["entries"] if e[0] != "on_train_start"]}
    expected["entries"] = [e for e in expected["entries"] if e[0] != "on_train_start"]
    return {
        name: (expected[name], found[name])
        for name in expected
        if not same(expected[name], found[name])
    }


def every_step(folder):
    """Return a callback that saves after each step into `folder`."""
    policy = CheckpointParams(every_n_steps=1, every_n_epochs=None, keep=0, at_error=False)
    return PeriodicCheckpoint(LocalStore(folder), policy)


class AtValidation(ModelCheckpoint):
    """Another class, for Lightning wants to know savers apart."""


def model_checkpoints(folder):
    """Return Lightning's own savers, which save wherever they can."""
    kept = {"save_top_k": -1, "dirpath": folder}
    return [
        ModelCheckpoint(filename="batch-{step}", every_n_train_steps=1, **kept),
        AtValidation(filename="validation-{epoch}-{step}", every_n_epochs=1,
                     save_on_train_epoch_end=False, **kept),
        ModelCheckpoint(filename="epoch-{epoch}", save_on_train_epoch_end=True, **kept),
        ModelCheckpoint(filename="time-{epoch}-{step}", train_time_interval=timedelta(0), **kept),
    ]  # fmt: skip


def quiet():
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for text in (".*does not have many workers", ".*treespec", ".*number of training batches",
                 ".*exists and is not empty", ".*you have passed in a", ".*sync_dist=True",
                 ".*is known to have issues", ".*suggested max number of worker"):  # fmt: skip
        warnings.filterwarnings("ignore", text)


def main(folder, *names):
    """Train each case in this process and its neighbours, resume it everywhere, and compare."""
    warnings.simplefilter("ignore")
    failures = []
    for name in names:
        case = RANKS_CASES[name]
        steps, own = Path(folder) / name / "steps", Path(folder) / name / "own"
        whole = fit(case, savers=[every_step(steps)])
        files = sorted(steps.glob("*/model.ckpt"))[:-1:2]
        failures += compare(name, case, files, whole, NetWithBatchEnd)
        if name in ("metrics", "random hooks", "accumulation by a schedule"):
            whole = fit(case, savers=model_checkpoints(own), net_class=Net)
            files = sorted(own.glob("[b,e,v]*.ckpt"))[::2]
            failures += compare(name, case, files, whole, Net)
    print(*failures, sep="\n", flush=True)
    return len(failures)


def compare(name, case, files, whole, net_class):
    found = []
    for file in files:
        changes = differences(whole, fit(case, resume=file, net_class=net_class), file)
        if changes:
            found.append(f"{name} {file} rank {RANK}: {changes}"[:2000])
    return found


if __name__ == "__main__":
    with groups_left():
        sys.exit(main(*sys.argv[1:]))
