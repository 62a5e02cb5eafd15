"""The table of support: every public name of the installed Lightning, and nothing else."""

import inspect

import pytest
from lightning.pytorch import LightningDataModule, LightningModule

from curitorch.external.adapter.hooks import REMOVED_FOR_DATA, SUPPORT, support
from curitorch.external.adapter.removed_hooks import REMOVED_OF_MODULES
from curitorch.external.adapter.signatures import CALLS

BASES = {"module": LightningModule, "datamodule": LightningDataModule}


def public(base: type) -> set[str]:
    return {name for name in dir(base) if not name.startswith("_")}


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
    import subprocess
    import sys

    code = (
        "import sys\nfrom curitorch.external.adapter.hooks import SUPPORT\n"
        "print('torch' in sys.modules, SUPPORT['training_step'].verdict)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "supported"]
