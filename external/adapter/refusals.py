"""What of a project the lean loop cannot honour, said before anything runs.

    Net cannot be trained on the lean loop as it is; 2 things have to change:
      net.py:31: Net.training_step_end: Lightning 2.0 removed it, …: do it at the end of …
      net.py:40: Net.on_train_epoch_end: outputs of an epoch are gone since Lightning 2.0: …

One error holds everything; what is only left out is one warning.
"""

import contextlib
import difflib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from lightning.pytorch import LightningDataModule, LightningModule

from ..environment import ranks
from ..refused import Refused
from .callbacks import callback_findings
from .conditions import condition_findings
from .finding import Finding
from .hooks import REMOVED_FOR_DATA, SUPPORT, support
from .overrides import name_of, overridden, override
from .signatures import mistake

_BASES = {"module": LightningModule, "datamodule": LightningDataModule}
_REMOVED = {
    "module": [name for name, each in SUPPORT.items() if each.verdict == "refused"],
    "datamodule": list(REMOVED_FOR_DATA),
}


class UnsupportedProject(Refused):
    """Everything in a project that the lean loop refuses, with file, line and what to do."""


class LeftOut(UserWarning):
    """What a project defines and training does not run."""


def check(
    module: LightningModule,
    datamodule: LightningDataModule | None = None,
    **settings: Any,
) -> None:
    """Refuse a project that the lean loop cannot train as Lightning would; changes nothing.

    What only processes, `setup` or the loaders that a hook makes can tell comes later.

    Args:
        module: What is to be trained.
        datamodule: Its data, if that is a data module.
        settings: Of the trainer, see `conditions.condition_findings`.

    Raises:
        UnsupportedProject: Something is not supported; the message has all of it.
    """
    _say(_of_project(module, datamodule, settings), name_of(type(module)))


def check_classes(
    module: type,
    datamodule: type | None = None,
    *,
    make: Callable[[], LightningModule] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Refuse a project for what its classes define, before one is made; warns of nothing.

    Args:
        module: Of a LightningModule.
        datamodule: Of a LightningDataModule.
        make: Makes the module. Called where something is refused, so that the error has what only
            the module itself tells as well; it may fail.
        settings: As of `check`, for that.

    Raises:
        UnsupportedProject: As by `check`.
    """
    findings = _refused_of_classes(module, datamodule)
    if findings and make is not None:
        with contextlib.suppress(Exception):
            findings = _of_project(make(), datamodule, settings or {})
    _say([each for each in findings if each.verdict == "refused"], name_of(module))


def _of_project(
    module: LightningModule,
    datamodule: LightningDataModule | type | None,
    settings: Mapping[str, Any],
) -> list[Finding]:
    """Return all that is to be said against a project; its data may be a class as yet."""
    made = None if isinstance(datamodule, type) else datamodule
    return [
        *_of_names(module, "module"),
        *([] if datamodule is None else _of_names(datamodule, "datamodule")),
        *condition_findings(module, made, **settings),
        *callback_findings(module),
    ]


def check_class(cls: type, owner: Literal["module", "datamodule"]) -> None:
    """Refuse one class for what it defines.

    Raises:
        UnsupportedProject: As by `check`.
    """
    module, datamodule = (cls, None) if owner == "module" else (None, cls)
    _say(_refused_of_classes(module, datamodule), name_of(cls))


def _refused_of_classes(module: type | None, datamodule: type | None) -> list[Finding]:
    return [
        finding
        for owner, cls in (("module", module), ("datamodule", datamodule))
        if cls is not None
        for finding in _of_names(cls, owner)  # type: ignore[arg-type]
        if finding.verdict == "refused"
    ]


def _of_names(subject: Any, owner: Literal["module", "datamodule"]) -> Iterator[Finding]:
    """Yield what the table, or a signature, says against the names that `subject` overrides."""
    for each in overridden(subject, _BASES[owner], _REMOVED[owner]):
        if each.module.startswith("curitorch."):
            continue  # our own bases, and data modules around loaders
        name = f"{each.defined_by}.{each.name}"
        found = support(each.name, owner)
        if found is None:
            yield Finding(
                "refused",
                name,
                each.place,
                "this version of curitorch does not know what Lightning does with it: use another "
                "name, or engine='lightning'",
            )
        elif found.fixed:
            yield Finding("refused", name, each.place, f"not to override: {found.remedy}")
        elif found.verdict != "supported":
            if each.name != "configure_callbacks":  # each callback is a matter of its own
                text = f"{found.reason}: {found.remedy}"
                yield Finding(found.verdict, name, each.place, text)
        elif (wrong := mistake(each, subject)) is not None:
            yield Finding("refused", name, each.place, wrong)
    yield from _near_misses(subject, owner)


def _near_misses(subject: Any, owner: Literal["module", "datamodule"]) -> Iterator[Finding]:
    """Yield names that look like a hook's, which nobody calls: `on_trian_start`, or another's."""
    hooks = [name for name in SUPPORT if name.startswith("on_") and support(name, owner)]
    base = _BASES[owner]
    cls = subject if isinstance(subject, type) else type(subject)
    for each in (each for each in cls.__mro__ if each not in base.__mro__):
        for name in vars(each):
            if not name.startswith("on_") or support(name, owner) is not None:
                continue
            text = _why_not_called(name, hooks)
            if text is not None:
                place = override(name, each, vars(each)[name]).place
                yield Finding("warned", f"{name_of(each)}.{name}", place, text)


def _why_not_called(name: str, hooks: Sequence[str]) -> str | None:
    if name in SUPPORT:
        return "it is a hook of modules, and nobody calls a data module's: put it there"
    close = difflib.get_close_matches(name, hooks, n=1, cutoff=0.9)
    return f"nobody calls it: did you mean {close[0]}?" if close else None


def _say(findings: Iterable[Finding], name: str) -> None:
    findings = list(findings)
    refused = [each for each in findings if each.verdict == "refused"]
    if refused:
        count = "one thing has" if len(refused) == 1 else f"{len(refused)} things have"
        raise UnsupportedProject(
            f"{name} cannot be trained on the lean loop as it is; {count} to change:\n"
            + "\n".join(f"  {each}" for each in refused)
        )
    if findings and ranks().rank == 0:
        warnings.warn(
            f"Training {name} on the lean loop leaves out:\n"
            + "\n".join(f"  {each}" for each in findings)
            + "\n(To silence: warnings.filterwarnings('ignore', category="
            "curitorch.external.adapter.refusals.LeftOut).)",
            LeftOut,
            stacklevel=4,
        )
