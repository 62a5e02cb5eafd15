"""The same module under Lightning's Trainer and under LeanTrainer: every call, in order, compared.

A call is compared with its arguments, tensors by their bytes, and with the epoch, the step, the
mode, whether gradients are recorded and the stage it was made in. What is different on purpose is
in `WANTED`.
"""

import difflib
import importlib.util
import sys
import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from curitorch.external.adapter import LeanTrainer
from curitorch.params.checkpoint import CheckpointParams

_SPEC = importlib.util.spec_from_file_location("recorder", Path(__file__).with_name("recorder.py"))
recorder = sys.modules["recorder"] = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(recorder)

WANTED = {
    "LM.state_dict()": "a save comes after on_train_batch_end, not before it",
    "DM.state_dict()": "a save comes after on_train_batch_end, not before it",
    "LM.on_save_checkpoint(the checkpoint)": "a save comes after on_train_batch_end, not before it",
}
"""Lines of a save, which comes at another place: they are compared on their own.

What Lightning does after a resume in the middle of an epoch is not compared at all, for it begins
the epoch's data anew; ours is compared with our own run that was not interrupted.
"""


@pytest.fixture(autouse=True)
def _quietly():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def model_and_data(trace, kind, data):
    torch.manual_seed(0)
    if "own loaders" in kind:
        return recorder.RecordingModelWithData(trace, kind, **data), None
    return recorder.RecordingModel(trace, kind), recorder.RecordingData(trace, **data)


def under_lightning(kind="", data=None, ckpt_path=None, callbacks=(), **options):
    trace = recorder.Trace()
    model, datamodule = model_and_data(trace, kind, data or {})
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=bool(callbacks),
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 2, **options},
    )
    trainer.fit(model, datamodule=datamodule, ckpt_path=ckpt_path)
    return trace, model


def under_ours(kind="", data=None, ckpt_path=None, **options):
    trace = recorder.Trace()
    model, datamodule = model_and_data(trace, kind, data or {})
    trainer = LeanTrainer(accelerator="cpu", logger=False, **{"max_epochs": 2, **options})
    trainer.fit(model, datamodule=datamodule, ckpt_path=ckpt_path)
    return trace, model


def assert_same(ours, theirs):
    difference = list(difflib.unified_diff(theirs, ours, "Lightning", "ours", lineterm="", n=2))
    assert not difference, "\n".join(difference[:60])


def weights(model):
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


CASES = {
    "automatic": {},
    "schedulers": {"kind": "schedules"},
    "clipping by norm": {"kind": "schedules", "gradient_clip_val": 0.5},
    "clipping by value": {"gradient_clip_val": 0.1, "gradient_clip_algorithm": "value"},
    "accumulation": {"kind": "schedules", "accumulate_grad_batches": 2},
    "accumulation of more than an epoch": {"accumulate_grad_batches": 8},
    "manual": {"kind": "manual"},
    "manual with schedule": {"kind": "manual schedules"},
    "manual with two optimizers": {"kind": "manual two"},
    "mapping with loss": {"kind": "mapping"},
    "None skips a batch": {"kind": "skips"},
    "minus one leaves an epoch": {"kind": "leaves"},
    "should_stop at an epoch's end": {"kind": "stops", "max_epochs": 4},
    "should_stop within an epoch": {"kind": "halts", "max_epochs": 4},
    "min_epochs": {"kind": "stops", "max_epochs": 4, "min_epochs": 3},
    "no sanity check": {"num_sanity_val_steps": 0},
    "whole sanity check": {"num_sanity_val_steps": -1},
    "validation mid-epoch": {"kind": "schedules", "val_check_interval": 2},
    "validation by share": {"val_check_interval": 0.5},
    "validation across epochs": {"val_check_interval": 4, "check_val_every_n_epoch": None},
    "validation every other epoch": {"check_val_every_n_epoch": 2, "max_epochs": 3},
    "validation and accumulation": {"val_check_interval": 3, "accumulate_grad_batches": 2},
    "several validation loaders": {"kind": "several", "data": {"validations": (5, 3)}},
    "limits": {"limit_train_batches": 3, "limit_val_batches": 1},
    "limits by share": {"limit_train_batches": 0.5, "limit_val_batches": 0.5},
    "no validation": {"limit_val_batches": 0},
    "steps": {"max_epochs": -1, "max_steps": 7},
    "steps and accumulation": {"max_epochs": -1, "max_steps": 4, "accumulate_grad_batches": 2},
    "loaders of the module": {"kind": "own loaders", "val_check_interval": 2},
    "last batch is smaller": {"data": {"samples": 9, "batch": 4}},
    "logs": {"kind": "logs", "log_every_n_steps": 1},
}


@pytest.mark.parametrize("case", CASES, ids=[case.replace(" ", "-") for case in CASES])
def test_hooks_are_called_as_by_lightning(case):
    theirs, lightnings = under_lightning(**CASES[case])
    ours, model = under_ours(**CASES[case])
    assert len(theirs) > 50
    assert_same(ours, theirs)
    assert weights(model) == weights(lightnings)


def what(line):
    return line.strip().split(" |")[0]


def without_saves(trace):
    return [line for line in trace if what(line) not in WANTED]


def saves(trace):
    """Return each save as (the call before it, its calls)."""
    found, before = [], ""
    for line in trace:
        if what(line) in WANTED:
            if before:
                found.append((before, []))
            found[-1][1].append(what(line))
            before = ""
        else:
            before = what(line)
    return found


def saved_by_lightning(folder, **options):
    saver = ModelCheckpoint(folder, every_n_train_steps=2, save_top_k=-1, filename="{step}")
    trace, _ = under_lightning(callbacks=[saver], **options)
    return trace, folder / "step=2.ckpt"


def saved_by_us(folder, **options):
    policy = CheckpointParams(every_n_steps=2, every_n_epochs=None, keep=0)
    trace, _ = under_ours(store=folder, checkpoint=policy, **options)
    return trace, folder / "step-00000002" / "model.ckpt"


@pytest.mark.parametrize("kind", ["schedules", "manual", "own loaders"])
def test_saves_are_the_same_calls_at_a_later_place(tmp_path, kind):
    theirs, _ = saved_by_lightning(tmp_path / "theirs", kind=kind, val_check_interval=4)
    ours, _ = saved_by_us(tmp_path / "ours", kind=kind, val_check_interval=4)
    assert_same(without_saves(ours), without_saves(theirs))
    assert [calls for _, calls in saves(ours)] == [calls for _, calls in saves(theirs)]
    over = ("LM.on_train_batch_end", "LM.on_validation_model_train", "LM.on_train_epoch_end")
    plateau = "LM.lr_scheduler_step(ReduceLROnPlateau"
    assert all(before.startswith((*over, plateau)) for before, _ in saves(ours))
    assert not any(before.startswith(over) for before, _ in saves(theirs))


@pytest.mark.parametrize("kind", ["schedules", "manual", "own loaders"])
def test_a_resume_calls_what_lightning_calls_and_goes_on_where_it_was(tmp_path, kind):
    _, their_file = saved_by_lightning(tmp_path / "theirs", kind=kind)
    whole, our_file = saved_by_us(tmp_path / "ours", kind=kind)
    theirs, _ = under_lightning(kind=kind, ckpt_path=their_file)
    ours, _ = under_ours(kind=kind, ckpt_path=our_file)
    with_theirs, _ = under_ours(kind=kind, ckpt_path=their_file)

    def beginning(trace):
        [start] = [i for i, line in enumerate(trace) if what(line) == "LM.on_train_start()"]
        return trace[: start + 1]

    assert_same(beginning(ours), beginning(theirs))
    assert_same(beginning(with_theirs), beginning(theirs))
    rest = ours[len(beginning(ours)) :]
    expected = without_saves(whole)
    assert_same(rest, expected[expected.index("fetch 4 5") :])
