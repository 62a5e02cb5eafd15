"""Switches that decide over bits: recorded, compared, and said with what sets them back."""

import subprocess
import sys
import warnings

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from curitorch.external.adapter import LeanTrainer
from curitorch.external.checkpoint import newest_valid
from curitorch.external.exact.switches import KEY, compare, differences, switches
from curitorch.external.stores import PeriodicCheckpoint
from curitorch.params import CheckpointParams


def test_switches_are_plain_data_that_a_checkpoint_holds(tmp_path):
    found = switches()
    torch.save(found, tmp_path / "switches")
    assert torch.load(tmp_path / "switches", weights_only=True) == found
    assert found["torch"] == str(torch.__version__)
    assert found["threads"] == torch.get_num_threads()


def test_the_same_switches_say_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        compare(switches(), switches())
        compare(None, switches())
        compare({"of a later version": 3}, switches())


TURNED = {
    "torch.set_num_threads(torch.get_num_threads() + 1)": "OMP_NUM_THREADS={threads} brings it",
    "torch.use_deterministic_algorithms(True)": "use_deterministic_algorithms(False)",
    "torch.set_float32_matmul_precision('medium')": "set_float32_matmul_precision('highest')",
    "torch.backends.mkldnn.enabled = False": "mkldnn.enabled = True",
    "torch.set_flush_denormal(True)": "set_flush_denormal(False)",
}


def test_each_switch_that_was_turned_is_said_with_what_turns_it_back():
    before = switches()
    code = (
        "import torch\nfrom curitorch.external.exact.switches import switches, differences\n"
        f"torch.set_num_threads({before['threads']})\n"
    )
    for change in TURNED:
        code += f"before = switches()\n{change}\nprint(*differences(before, switches()))\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for line, said in zip(done.stdout.strip().splitlines(), TURNED.values(), strict=True):
        assert said.format(**before) in line


def test_another_version_and_device_are_said_in_one_warning():
    now = {**switches(), "torch": "9.9", "device": "NVIDIA H200"}
    with pytest.warns(UserWarning, match=r"torch='2.*and here it is '9\.9'; device='cpu'") as said:
        compare(switches(), now)
    assert len([each for each in said if each.category is UserWarning]) == 1


def test_switches_of_gpus_matter_only_there():
    now = {**switches(), "cudnn_benchmark": True}
    assert differences(switches(), now) == []
    (said,) = differences(switches(), now, on_gpu=True)
    assert "cudnn.benchmark = False brings it back" in said


def test_the_lightning_engine_records_them_and_says_a_difference(tmp_path):
    def fit(steps, resume=None):
        periodic = PeriodicCheckpoint(tmp_path / "store", CheckpointParams())
        trainer = Trainer(
            max_steps=steps, callbacks=[periodic], logger=False, accelerator="cpu",
            enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
            enable_checkpointing=False,
        )  # fmt: skip
        trainer.fit(BoringModel(), ckpt_path=resume)

    fit(1)
    path = newest_valid(tmp_path / "store").path
    saved = torch.load(path, weights_only=True)
    assert saved[KEY] == switches()
    saved[KEY]["threads"] += 1
    torch.save(saved, tmp_path / "altered.ckpt")
    with pytest.warns(UserWarning, match="was trained with threads="):
        fit(2, tmp_path / "altered.ckpt")


def test_the_lean_engine_records_them_and_says_a_difference(tmp_path):
    def fit(steps, resume=None):
        trainer = LeanTrainer(max_steps=steps, accelerator="cpu", store=tmp_path / "store")
        model = BoringModel()
        trainer.fit(model, model.train_dataloader(), ckpt_path=resume)

    fit(1)
    path = newest_valid(tmp_path / "store").path
    saved = torch.load(path, weights_only=True)
    assert saved[KEY] == switches()
    saved[KEY]["deterministic"] = True
    torch.save(saved, tmp_path / "altered.ckpt")
    with pytest.warns(UserWarning, match=r"use_deterministic_algorithms\(True\) brings it back"):
        fit(2, tmp_path / "altered.ckpt")
