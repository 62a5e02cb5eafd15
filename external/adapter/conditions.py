"""What the lean loop refuses for how a project is to be trained, not for a name alone."""

from collections.abc import Iterator
from typing import Any, Literal

from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.nn.modules.batchnorm import _NormBase

from ..exact.loader_kinds import why_not_plain
from .batches import SEQUENTIAL, is_sequential
from .finding import Finding
from .overrides import Override, name_of, overridden, place_of_class
from .world import is_plain

TRANSFERS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


def condition_findings(
    module: LightningModule,
    datamodule: LightningDataModule | None,
    *,
    exact: Literal["rank", "world"] = "rank",
    accumulate: int = 1,
    clips: bool = False,
    strategy: Any = "auto",
    train: Any = None,
) -> Iterator[Finding]:
    """Yield what is refused or left out of this module, trained in this way.

    Args:
        module: What is to be trained.
        datamodule: Its data, if that is a data module.
        exact: The level of exactness.
        accumulate: Batches per optimizer step.
        clips: Whether the trainer clips gradients.
        strategy: As the user gave it.
        train: Training loaders, if they were given; otherwise the hook's, which nobody knows yet.
    """
    overrides = {each.name: each for each in overridden(module, LightningModule)}
    yield from _missing(module)
    yield from _of_data(module, train, exact=exact)
    yield from _of_strategy(module, strategy, exact=exact)
    if not module.automatic_optimization:
        yield from _manual(module, accumulate=accumulate, clips=clips)
    if exact == "world":
        yield from _not_for_any_world(module, overrides)
    if datamodule is not None:
        for each in TRANSFERS:
            if each in overrides and is_overridden(each, datamodule):
                yield _of(
                    overrides[each],
                    "warned",
                    f"{name_of(type(datamodule))} has one as well, which wins: remove one",
                )
    yield from _modules_within(module)


def _missing(module: LightningModule) -> Iterator[Finding]:
    for name in ("training_step", "configure_optimizers"):
        if not is_overridden(name, module):
            yield _of_class(module, name, "it is not defined: no training without it")


def _of_data(module: LightningModule, train: Any, *, exact: str) -> Iterator[Finding]:
    """Yield why loaders that were given to `fit` are no training data."""
    if is_sequential(train):
        yield _of_class(module, "train_dataloaders", SEQUENTIAL.rstrip("."))
    elif exact == "world" and train is not None:
        several = isinstance(train, list | tuple | dict | CombinedLoader)
        reason = "several loaders" if several else why_not_plain(train)
        if reason is not None:
            yield _of_class(
                module,
                "train_dataloaders",
                f"the training data has {reason}, whose order is no function of seed and epoch for "
                "every number of processes: exact='world' takes a plain DataLoader, or use "
                "exact='rank'",
            )


def _of_strategy(module: LightningModule, strategy: Any, *, exact: str) -> Iterator[Finding]:
    """Yield why the processes cannot share this module in that way."""
    if exact == "world" and not is_plain(strategy):
        yield _of_class(
            module,
            "strategy",
            f"it is {strategy!r}, and with exact='world' the gradients are added up in a fixed "
            "tree instead: leave strategy 'auto' or 'ddp', or use exact='rank'",
        )
    if strategy == "fsdp2" and not module.automatic_optimization:
        yield _of_class(
            module,
            "automatic_optimization",
            "it is False, and strategy='fsdp2' gathers parameters around whole steps: use "
            "automatic optimization, or strategy='ddp'",
        )


def _manual(module: LightningModule, *, accumulate: int, clips: bool) -> Iterator[Finding]:
    """Yield what a module that steps its optimizers itself has to do itself as well."""
    if accumulate != 1:
        yield _of_class(
            module,
            "automatic_optimization",
            f"it is False, so nothing but training_step can accumulate {accumulate} batches: "
            "leave accumulate 1, or use automatic optimisation",
        )
    if clips:
        yield _of_class(
            module,
            "automatic_optimization",
            "it is False, so nothing but training_step can clip gradients: call "
            "self.clip_gradients there, and leave the gradient clip unset",
        )


def _not_for_any_world(
    module: LightningModule, overrides: dict[str, Override]
) -> Iterator[Finding]:
    """Yield what makes the weights depend on the number of processes."""
    if not module.automatic_optimization:
        yield _of_class(
            module,
            "automatic_optimization",
            "it is False, and with exact='world' the loop has to add up the gradients itself: "
            "use exact='rank', or automatic optimisation",
        )
    if "optimizer_step" in overrides:
        yield _of(
            overrides["optimizer_step"],
            "refused",
            "with exact='world' the loop takes the step, once for all grains: use exact='rank'",
        )
    for name, each in module.named_modules():
        if isinstance(each, _NormBase) and each.track_running_stats:
            yield _of_class(
                module,
                name,
                f"{type(each).__name__} keeps running statistics, which depend on how a batch is "
                "divided: use GroupNorm, track_running_stats=False, or exact='rank'",
            )


def _modules_within(module: LightningModule) -> Iterator[Finding]:
    """Yield the hooks of LightningModules inside, which nobody calls, as under a Trainer."""
    for name, each in module.named_modules():
        if each is module or not isinstance(each, LightningModule):
            continue
        hooks = [o for o in overridden(each, LightningModule) if o.name.startswith("on_")]
        if hooks:
            names = ", ".join(hook.name for hook in hooks)
            text = f"within {name_of(type(module))} ({name}) nobody calls {names}"
            yield _of(hooks[0], "warned", f"{text}: call them from the outer module's hooks")


def _of(override: Override, verdict: Literal["warned", "refused"], text: str) -> Finding:
    return Finding(verdict, f"{override.defined_by}.{override.name}", override.place, text)


def _of_class(module: Any, name: str, text: str) -> Finding:
    cls = type(module)
    return Finding("refused", f"{name_of(cls)}.{name}", place_of_class(cls), text)
