"""The table of support: every public name of the installed Lightning, and nothing else."""

import inspect
import subprocess
import sys

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch.utils.data import DataLoader

from curitorch.external.adapter import LeanTrainer
from curitorch.external.adapter.hooks import REMOVED_FOR_DATA, SUPPORT, support
from curitorch.external.adapter.removed_hooks import REMOVED_OF_MODULES
from curitorch.external.adapter.signatures import CALLS

BASES = {"module": LightningModule, "datamodule": LightningDataModule}


def public(base: type) -> set[str]:
    return {name for name in {*dir(base), *dir(base())} if not name.startswith("_")}


@pytest.mark.parametrize("owner", BASES)
def test_every_public_name_of_the_installed_lightning_is_classified(owner):
    assert [name for name in sorted(public(BASES[owner])) if support(name, owner) is None] == []


def test_no_name_is_classified_that_neither_lightning_nor_an_earlier_one_has():
    known = public(LightningModule) | public(LightningDataModule) | set(REMOVED_OF_MODULES)
    # torch has and loses some of nn.Module's own; these are let be
    assert set(SUPPORT) - known <= {"ipu", "mtia", "xpu"}


def test_a_name_has_the_owners_that_have_it():
    for name, each in SUPPORT.items():
        if name in REMOVED_OF_MODULES:
            continue
        has = {owner for owner, base in BASES.items() if name in public(base)}
        expected = {"module", "datamodule"} if each.owner == "both" else {each.owner}
        assert has == expected, name


def test_removed_hooks_are_not_in_the_installed_lightning_and_name_what_to_do():
    assert not set(REMOVED_OF_MODULES) & public(LightningModule)
    assert not set(REMOVED_FOR_DATA) & public(LightningDataModule)
    for each in [*SUPPORT.values(), *REMOVED_FOR_DATA.values()]:
        assert each.reason
        assert each.remedy or (each.verdict == "supported" and not each.fixed)


def test_each_supported_hook_that_is_called_has_its_arguments_checked():
    called = {
        name
        for name, each in SUPPORT.items()
        if each.verdict == "supported" and name.startswith(("on_", "configure_"))
    }
    assert called - {"on_gpu"} <= set(CALLS)


@pytest.mark.parametrize("name", [name for name in CALLS if not name.endswith("_step")])
def test_the_arguments_are_those_of_lightnings_own_hook(name):
    base = LightningModule if hasattr(LightningModule, name) else LightningDataModule
    parameters = list(inspect.signature(getattr(base, name)).parameters.values())[1:]
    parameters = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    longest = CALLS[name][-1].replace("=", "").split()
    assert [p.name for p in parameters] == longest


def test_the_table_is_had_without_torch():
    code = (
        "import sys\nfrom curitorch.external.adapter.hooks import SUPPORT\n"
        "print('torch' in sys.modules, SUPPORT['training_step'].verdict)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "supported"]


class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).pow(2).mean()

    def validation_step(self, batch, batch_idx):
        self.layer(batch)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    def train_dataloader(self):
        return DataLoader(torch.ones(8, 2), 4)

    def val_dataloader(self):
        return DataLoader(torch.ones(8, 2), 4)


class Data(LightningDataModule):
    fails = False

    def train_dataloader(self):
        return DataLoader(torch.ones(8, 2), 4)

    def val_dataloader(self):
        return DataLoader(torch.ones(8, 2), 4)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        if self.fails:
            raise RuntimeError("It fails")
        return batch


def counting(base: type, names: list[str]) -> tuple[type, set[str]]:
    """Return a subclass that overrides `names`, and those of them that were called."""
    called: set[str] = set()

    def override(name):
        def hook(self, *arguments, **options):
            called.add(name)
            return getattr(base, name)(self, *arguments, **options)

        return hook

    return type("Counting", (base,), {name: override(name) for name in names}), called


@pytest.mark.filterwarnings("ignore")
def test_every_hook_of_a_module_in_the_table_is_called(tmp_path):
    names = [
        name
        for name in SUPPORT
        if SUPPORT[name].owner in ("module", "both")
        and SUPPORT[name].verdict == "supported"
        and name in {*CALLS, "clip_gradients", "state_dict", "load_state_dict", "zero_grad"}
    ]
    assert len(names) > 40
    module, called = counting(Net, names)
    options = {"accelerator": "cpu", "store": tmp_path, "gradient_clip_val": 1.0}
    LeanTrainer(max_epochs=1, **options).fit(module())
    LeanTrainer(max_epochs=2, **options).fit(module(), ckpt_path="last")
    assert called == set(names)


@pytest.mark.filterwarnings("ignore")
def test_every_hook_of_data_in_the_table_is_called(tmp_path):
    names = [
        name
        for name in SUPPORT
        if SUPPORT[name].owner in ("datamodule", "both")
        and SUPPORT[name].verdict == "supported"
        and name in {*CALLS, "state_dict", "load_state_dict"}
    ]
    data, called = counting(Data, names)
    options = {"accelerator": "cpu", "store": tmp_path}
    holding = {"state_dict": lambda self: data.state_dict(self) or {"of": "data"}}
    with_state = type("Counting", (data,), holding)
    LeanTrainer(max_epochs=1, **options).fit(Net(), datamodule=with_state())
    failing = with_state()
    failing.fails = True
    with pytest.raises(RuntimeError, match="It fails"):
        LeanTrainer(max_epochs=2, **options).fit(Net(), datamodule=failing, ckpt_path="last")
    assert called == set(names)
