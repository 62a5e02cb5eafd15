"""What a transformers Trainer goes on from, and how it is brought there.

It counts its steps in those of its number of processes, and finds its epoch by them. So where
other processes saved, the steps that are done are counted anew, by what is left of the epoch under
way (`rest_of_epoch`); a limit of steps that the script gives keeps their number.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR

from ..exact.gradient_layout import put_layout
from . import generators, loader_iterators, transformers_left_out
from .fetches import replay
from .findings import LOG, Findings
from .loader_iterators import FRAMEWORKS
from .rest_of_epoch import rest_of_epoch

_WHOLE = 1e-6  # of an epoch, which is counted as a float


class TransformersWayBack:
    """That of one Trainer, to the unpacked checkpoint in `folder`.

    Args:
        trainer: Begins to train.
        folder: As the Trainer wrote it, with the parts of `saved_by` processes.
        saved_by: How many there were.
        findings: Where what is not exact is said.
    """

    def __init__(self, trainer: Any, folder: Path, saved_by: int, findings: Findings) -> None:
        rank, now = trainer.args.process_index, trainer.args.world_size
        self._trainer = trainer
        self._findings = findings
        self._saved = _part(folder, rank % saved_by)
        self._is_replayed = False
        self._before = None if saved_by == now else saved_by
        state = json.loads((folder / "trainer_state.json").read_text())
        self.steps = self.steps_before = int(state["global_step"])
        """Those that are done, as they are counted now and were counted before."""
        self._epochs = int(state["epoch"] + _WHOLE)
        self._is_under_way = state["epoch"] - self._epochs > _WHOLE
        self._loader: Any = None
        if self._before is not None and self._saved is not None:
            first = _part(folder, 0)
            assert first is not None
            self._saved.update(position=first["position"], sums={}, layout=None)

    def epochs_for(self, steps: int, per_epoch: int) -> int | None:
        """Return how many epochs a limit of `steps` takes; None: as many as ever."""
        if self._before is None:
            return None
        return self._epochs + 1 + math.ceil(max(0, steps - self.steps_before) / per_epoch)

    def divide_anew(self, loader: Any, per_epoch: int) -> tuple[int, int] | None:
        """Count the steps that are done in those of as many processes as there are.

        Args:
            loader: Of this process.
            per_epoch: Steps of an epoch now.

        Returns:
            Whole epochs, and batches of the next; None: as ever.
        """
        trainer, every = self._trainer, self._trainer.args.gradient_accumulation_steps
        if self._before is None or self._saved is None:
            return None
        left = per_epoch
        if self._is_under_way:
            total = len(loader)
            last = total % every or every  # batches of an epoch's last step

            def number_of_batches(least: int) -> int:  # all of which belong to a step
                return last + every * max(0, math.ceil((least - last) / every)) if least else 0

            node = self._saved["position"]
            found = node and rest_of_epoch(node, loader, node["yielded"] - 1, number_of_batches)
            if found:
                node["fetches"] = []
                self._loader, FRAMEWORKS.number_of_batches = loader, number_of_batches
                FRAMEWORKS.rebuild = (loader, self.iterator)
                left = math.ceil((len(found[0].batches) - found[1]) / every)
            else:
                self._findings.add(
                    "transformers.Trainer",
                    f"it was saved by {self._before} processes, here are {trainer.args.world_size},"
                    " and the order of its samples cannot be divided anew: the epoch under way "
                    "begins anew",
                )
        if trainer.args.max_steps <= 0:
            self.steps = self._epochs * per_epoch + per_epoch - left
            LOG.warning(
                "Saved by %d processes, and here are %d: step %d of those is step %d of these.",
                *(self._before, trainer.args.world_size, self.steps_before, self.steps),
            )
        trainer.state.global_step = self.steps
        return self._epochs, (per_epoch - left) * every

    def leads(self, loader: Any) -> bool:
        """Return whether the iterator that `loader` makes next is led to where it stood."""
        if self._saved is None or self._saved["position"] is None:
            return False
        self._loader = loader
        FRAMEWORKS.rebuild = (loader, self.iterator)
        return True

    def iterator(self) -> Any:
        """Return an iterator of the Trainer's loader, where it stood."""
        assert self._saved is not None
        node = self._saved["position"]
        it = loader_iterators.rebuild(node, self._loader, 1)
        if node["fetches"]:
            replay(it, node["fetches"][-1:], self._saved["rng"])
            self._is_replayed = True
        return it

    def put_loaded(self) -> None:
        """Put back what the Trainer, which has loaded all that it saves itself, leaves out."""
        if self._saved is None:
            return
        transformers_left_out.put_sums(self._trainer, self._saved)
        model, layout = self._trainer.model_wrapped, self._saved.get("layout")
        if layout is not None and isinstance(model, DistributedDataParallel):
            put_layout(model, layout)
        schedule, steps = self._trainer.lr_scheduler, self.steps - self.steps_before
        if steps and isinstance(schedule, LambdaLR):
            _move(schedule, steps)

    def put_generators(self) -> bool:
        """Put them back, unless the fetch of a batch that was fetched already does."""
        if self._saved is None:
            return False
        if not self._is_replayed:
            generators.put(self._saved["rng"])
        return True


def _part(folder: Path, rank: int) -> dict[str, Any] | None:
    path = folder / transformers_left_out.file_of(rank)
    return torch.load(path, weights_only=True) if path.exists() else None


def _move(schedule: LambdaLR, steps: int) -> None:
    """Let a schedule go on so many steps later."""
    schedule.last_epoch += steps
    pairs = zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
    rates = [base * factor(schedule.last_epoch) for base, factor in pairs]
    schedule._last_lr = rates
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
