"""`self.log` without a Trainer: the values that a module logs, by step and by epoch.

Names, defaults by hook, weights, resets and errors are those of Lightning's logger connector; the
loop says where it is, and asks for what is to be shown:

    logged.attach(module)                                   # module.log is ours from here on
    logged.begin_fit()
    for each validation:                                    # the sanity check is one, too
        logged.begin_validation()                           # before its first hook
        logged.begin_batch(batch, dataloader_idx)           # an index only if there are several
        logged.hook = "validation_step"; …                  # around each hook; None when it is over
        logged.after_batch()                                # after on_validation_batch_end
        logged.end_batches()                                # before on_validation_epoch_end
        logged.epoch_end("validate")                        # after on_validation_epoch_end
        logged.end_validation()                             # after on_validation_end
    for each training batch:
        logged.begin_batch(batch)
        logged.after_batch(stepped=True)                    # after on_train_batch_end
        logged.batches_that_stepped += 1                    # after a validation that is due
    logged.end_batches()                                    # before on_train_epoch_end
    logged.epoch_end("train")                               # after it (plateaus may step before)

What these return goes to the loggers, with `step`, as `for_loggers` gives it.
"""

import numbers
from collections.abc import Callable
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics import Metric

from ..exact.plain import on_device, plain
from .gathered import Shown, records
from .log_checks import check_kind, number, samples_in, single
from .log_phases import LogPhases, Values
from .log_rules import levels
from .logged_value import LoggedValue, Reduce


class Logged(LogPhases):
    """See the module.

    Args:
        log_every_n_steps: After so many batches that stepped, a training batch's values are shown;
            0: never.
        reduce: The strategy's reduction over ranks, for `sync_dist`; None: there is one process.
        has_logger: Whether there is a logger, else `self.log(logger=True)` warns.
    """

    def __init__(
        self, *, log_every_n_steps: int = 50, reduce: Reduce | None = None, has_logger: bool = True
    ) -> None:
        super().__init__(log_every_n_steps=log_every_n_steps, has_logger=has_logger)
        self.reduce = reduce
        self._module: LightningModule | None = None
        self._metric_names: dict[int, str] | None = None

    def attach(self, module: LightningModule) -> None:
        """Let `module.log` and `module.log_dict` come here."""
        self._module, self._metric_names = module, None
        object.__setattr__(module, "log", self.log)

    def detach(self) -> None:
        """Give the module its own `log` back."""
        if self._module is not None:
            vars(self._module).pop("log", None)
        self._module = None

    def log(
        self,
        name: str,
        value: Any,
        prog_bar: bool = False,
        logger: bool | None = None,
        on_step: bool | None = None,
        on_epoch: bool | None = None,
        reduce_fx: str | Callable[..., Any] = "mean",
        enable_graph: bool = False,
        sync_dist: bool = False,
        sync_dist_group: Any = None,
        add_dataloader_idx: bool = True,
        batch_size: int | None = None,
        metric_attribute: str | None = None,
        rank_zero_only: bool = False,
    ) -> None:
        """Log a value, as `LightningModule.log` does."""
        active, hook = self._active, self.hook
        options = (
            *(prog_bar, logger, on_step, on_epoch, reduce_fx, enable_graph, sync_dist),
            *(sync_dist_group, add_dataloader_idx, metric_attribute, rank_zero_only),
        )
        logged = active.known.get((hook, name, active.dataloader_idx))
        if logged is None or logged.options != options:
            logged = self._registered(name, value, options)
        if self._first is not False and self._last_hook != hook:
            # A hook's first values of an epoch: what it has from the last one goes.
            self._show_pending()
            active.reset(hook)
        self._last_hook = hook
        if isinstance(value, Tensor) and logged.is_tensor:
            value = value.detach()
            if value.ndim:
                value = single(name, value)
            # The user may change it in place. A sum or mean has a new tensor anyway.
            if logged.on_step or logged.kind in ("min", "max"):
                value = value.clone()
        elif isinstance(value, numbers.Number) and logged.is_tensor:
            value = number(value, self._attached().device)
        else:
            if logged.total is not value:
                logged = self._registered(name, value, options)
            logged.add_metric(value)
            return
        if batch_size is None:
            batch_size = self._samples
            if batch_size is None:
                batch_size = 1
                if self._batch is not None and logged.on_epoch and logged.kind == "mean":
                    batch_size = self._samples = samples_in(self._batch)
        logged.add(value, batch_size)

    def fold(self) -> None:
        """Put together what several processes logged, where that is not left to `sync_dist`."""

    def hooks_of(self, name: str) -> set[str]:
        """Return the hooks of training in which a value is logged that is shown as `name`."""
        forms = (name, name.removesuffix("_step"), name.removesuffix("_epoch"))
        return {hook for hook, logged, _ in self._train.known if hook and logged in forms}

    def capture(self) -> dict[str, Any]:
        """Return all that an unfinished epoch has gathered, between two batches, in some µs.

        `state_dict` makes it plain, then or later. The states of Metric objects are not in it, see
        `external.exact.metric_states`.
        """
        self._show_pending()
        shown = self._shown
        return {
            "logged": self._train.capture(),
            "shown": {
                "callback_metrics": dict(shown.callback),
                "logged_metrics": dict(shown.logger),
                "progress_bar_metrics": dict(shown.progress_bar),
            },
            "validation_batches": dict(self.validation_batches),
            "batches_that_stepped": self.batches_that_stepped,
            "first": self._first,
            "last_hook": self._last_hook,
        }

    def state_dict(self, captured: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what a checkpoint can hold, of now or of when `capture` was called."""
        captured = self.capture() if captured is None else captured
        shown = {**captured["shown"]}
        bar = shown["progress_bar_metrics"]
        shown["progress_bar_metrics"] = {name: value.item() for name, value in bar.items()}
        return {**captured, "logged": records(captured["logged"]), "shown": plain(shown)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned, after the hooks that begin a fit."""
        module = self._attached()
        metrics = {name: m for name, m in module.named_modules() if isinstance(m, Metric)}
        self._train.restore(
            state["logged"], metrics=metrics, device=module.device, reduce=self.reduce
        )
        shown = on_device(state["shown"], module.device)
        bar = {
            n: torch.tensor(v, dtype=torch.double) for n, v in shown["progress_bar_metrics"].items()
        }
        self._shown = Shown(shown["callback_metrics"], shown["logged_metrics"], bar)
        self.validation_batches = dict(state["validation_batches"])
        self.batches_that_stepped = state["batches_that_stepped"]
        self._first, self._last_hook = state["first"], state["last_hook"]
        self._is_pending = False

    def _attached(self) -> LightningModule:
        if self._module is None:
            raise RuntimeError("No module logs here. Call attach(module) first.")
        return self._module

    def _registered(self, name: str, value: Any, options: tuple[Any, ...]) -> LoggedValue:
        """Return the value of a key that was not logged with these options before."""
        prog_bar, logger, on_step, on_epoch, reduce_fx, enable_graph, sync_dist = options[:7]
        sync_group, add_dataloader_idx, metric_attribute, rank_zero_only = options[7:]
        check_kind(name, value)
        on_step, on_epoch = levels(self.hook, on_step, on_epoch)
        if add_dataloader_idx and "/dataloader_idx_" in name:
            raise MisconfigurationException(
                f"You called `self.log` with the key `{name}` but it should not contain "
                "information about `dataloader_idx` when `add_dataloader_idx=True`"
            )
        if metric_attribute is None and isinstance(value, Metric):
            metric_attribute = self._name_of(name, value)
        if logger and not self.has_logger:
            rank_zero_warn(
                f"You called `self.log({name!r}, ..., logger=True)` but have no logger configured."
            )
        return self._active.registered(
            options,
            value,
            hook=self.hook,
            name=name,
            prog_bar=prog_bar,
            logger=logger is None or bool(logger),
            on_step=on_step,
            on_epoch=on_epoch,
            reduce_fx=reduce_fx,
            enable_graph=enable_graph,
            add_dataloader_idx=add_dataloader_idx,
            metric_attribute=metric_attribute,
            sync_dist=bool(sync_dist) and self.reduce is not None,
            sync_group=sync_group,
            rank_zero_only=rank_zero_only,
            reduce=self.reduce,
        )

    def _name_of(self, name: str, metric: Metric) -> str:
        """Return under which name the module has `metric`."""
        if self._metric_names is None:
            self._metric_names = {
                id(each): found
                for found, each in self._attached().named_modules()
                if isinstance(each, Metric)
            }
        found = self._metric_names.get(id(metric))
        if found is None:
            raise MisconfigurationException(
                "Could not find the `LightningModule` attribute for the `torchmetrics.Metric` "
                f"logged as {name!r}. Make it an attribute of the module, or name one with "
                f"`metric_attribute`: {sorted(self._metric_names.values())}"
            )
        return found


def for_loggers(
    values: Values, *, step: int, epoch: int, of_batch: bool = False
) -> tuple[dict[str, float], int]:
    """Return what a logger's `log_metrics` gets for `values`, and its step.

    Args:
        values: From `Logged`.
        step: `Logged.step`; a value that was logged as "step" takes its place.
        epoch: Is added.
        of_batch: They are of a validation batch, and go as they are.
    """
    numbers_ = {name: value.item() for name, value in values.items()}
    if of_batch:
        return numbers_, step
    own = numbers_.pop("step", None)
    if own is not None:
        return numbers_, int(own)
    numbers_.setdefault("epoch", epoch)
    return numbers_, step
