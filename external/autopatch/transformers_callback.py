"""The callback of a transformers Trainer: saves when due, holds clean states, ends when asked to.

A checkpoint is what the Trainer writes into `checkpoint-N`, as one tar file, with what the Trainer
itself leaves out, for each rank: sums of logged losses, generators, and where its loader stands.
"""

import contextlib
import shutil
import tarfile
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel
from transformers import TrainerCallback

from ..environment import ranks
from ..exact.gradient_layout import can_be_kept, may_change
from ..stores.known import check_known
from ..stores.lease_holder import holder
from ..stores.retention import Retention
from ..stores.store import Lease
from . import transformers_held, transformers_left_out
from .findings import LOG
from .framework_part import FrameworkPart
from .transformers_held import FOR_OURS
from .transformers_way_back import TransformersWayBack
from .wish import Wish

FILE = "checkpoint.tar"
KEPT = Retention(newest=2)


class StoreCallback(TrainerCallback):
    """That of `trainer`, which has a part of the store of its own.

    Attributes:
        loader: torch's own that the Trainer iterates over.
        way_back: What the Trainer goes on from, as long as it is not there.
    """

    def __init__(self, trainer: Any, part: FrameworkPart, session: Any) -> None:
        self.trainer = trainer
        self.part = part
        self.loader: Any = None
        self.way_back: TransformersWayBack | None = None
        self._session = session
        self._store = part.open()
        self._held: Lease | None = None
        self._lease = contextlib.ExitStack()
        self._wish = Wish.NOTHING
        self._replaced: dict[str, Any] = {}
        self._epoch_ends = False
        self._unpacked: Path | None = None
        self._newest = -1  # the step that is saved
        self._ahead = 0  # of the Trainer's steps, those of the store: other processes counted
        self._saving = threading.RLock()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """All is made and loaded."""
        self._session.begin_aside(self.save_held)
        self._begin_holding(args)
        model = self.trainer.model_wrapped
        is_ddp = isinstance(model, DistributedDataParallel)
        if is_ddp and may_change(model) and not can_be_kept(model):
            self._session.findings.add(
                "transformers.Trainer",
                "with ddp_static_graph three or more processes add gradients in another order "
                "in the first steps after an interruption; leave it away",
            )
        if self._unpacked is not None:
            self.wait()
            if ranks().local_rank == 0:
                shutil.rmtree(self._unpacked, ignore_errors=True)
            self._unpacked = None
        if self.way_back is not None:
            self.way_back.put_loaded()
            self._ahead = self._newest - self.way_back.steps

    def _begin_holding(self, args: Any) -> None:
        """Hold clean states for an error, if one process can save them."""
        session = self._session
        if session.held_aside is None or args.world_size == 1:
            return
        if session.ranks is None or not transformers_held.is_whole(self.trainer):
            session.held_aside = None
            LOG.warning(
                "An exception saves nothing here: the model is divided among the processes, or "
                "torchrun has not started them."
            )
        elif args.process_index == 0:
            session.ranks.watch(self.save_held)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Nothing of it is done."""
        self._epoch_ends = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A place to save at, but for an epoch's last: then behind what ends it."""
        self._epoch_ends = abs(state.epoch - round(state.epoch)) < 1e-6
        if self._session.tracker.due and not self._epoch_ends:
            self._look(args, control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A place to save at."""
        self._epoch_ends = False
        if self._session.tracker.due:
            self._look(args, control)

    def _look(self, args: Any, control: Any) -> None:
        """Let the Trainer save if that is due here."""
        self._wish = self._session.due.take()
        if self._wish == Wish.NOTHING:
            self._session.done_here(self._wish)
        if self._wish <= Wish.HOLD:
            return
        if not control.should_save:
            self._replaced = {name: getattr(args, name) for name in FOR_OURS}
            for name, value in FOR_OURS.items():
                setattr(args, name, value)
        control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The Trainer has saved."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if not self._epoch_ends and not args.save_only_model:
            own = transformers_left_out.file_of(args.process_index)
            torch.save(self._left_out(), folder / own)
            self.wait()
            if args.process_index == 0:
                self._put(folder, state.global_step + self._ahead)
        if self._replaced:
            for name, value in self._replaced.items():
                setattr(args, name, value)
            self.wait()
            if args.process_index == 0:
                shutil.rmtree(folder, ignore_errors=True)
            self._replaced = {}
        wish, self._wish = self._wish, Wish.NOTHING
        if wish:
            if wish == Wish.STOP:
                self.close()
            self._session.done_here(wish)

    def hold(self) -> None:
        """Copy the state, behind what a step is followed by, if that is wanted."""
        if self._wish != Wish.HOLD:
            return
        self._wish, session = Wish.NOTHING, self._session
        own, step = transformers_held.part_of(self.trainer, self._left_out()), self._step()
        parts = [own] if session.ranks is None else session.ranks.hand_over(f"held-{step}", own)
        if session.held_aside is not None and parts:
            transformers_held.hold(session.held_aside, self.trainer, parts, step)
        elif session.held_aside is not None:
            session.held_aside.wait()
        session.done_here(Wish.HOLD)

    def save_held(self) -> None:
        """Save the last clean state after an error, of this process or of another one."""
        held = self._session.held_aside
        with self._saving:
            if held is not None and self.trainer.args.process_index == 0:
                transformers_held.save(held, self.trainer, self._newest, self._put)

    def _step(self) -> int:
        return int(self.trainer.state.global_step) + self._ahead

    def _left_out(self) -> dict[str, Any]:
        return transformers_left_out.take(self.trainer, self.loader)

    def wait(self) -> None:
        """Wait for the other ranks."""
        if self.trainer.args.world_size > 1:
            torch.distributed.barrier()

    def _put(self, folder: Path, step: int) -> None:
        """Put a checkpoint's folder into the store."""
        with self._saving, self._store.drafting() as draft:
            if self._held is None:
                self._held = self._lease.enter_context(self._store.lease(holder()))
            path = draft / FILE
            with tarfile.open(path, "w") as archive:
                archive.add(folder, folder.name)
            details = {"framework": "transformers", "world_size": ranks().world_size}
            self._store.put(step, {FILE: path}, lease=self._held, move=True, details=details)
            self._store.prune(KEPT, lease=self._held)
            self._newest = step

    def close(self) -> None:
        """Let go of the store's lease; the Trainer is where it went on from."""
        self.way_back = None
        with self._saving:
            self._held = None
            self._lease.close()

    def restore(self, output: Path) -> str | None:
        """Return the path of the newest checkpoint, unpacked by rank 0 of each machine."""
        with TemporaryDirectory(prefix="curitorch-") as temporary:
            found = self._store.fetch_newest_valid(FILE, Path(temporary))
            check_known(self._store, None if found is None else found[0].step)
            if found is None:
                return None
            stored, path = found
            self._unpacked = output / f".curitorch-{ranks().rank - ranks().local_rank}"
            if ranks().local_rank == 0:
                shutil.rmtree(self._unpacked, ignore_errors=True)  # of one that was killed
                self._unpacked.mkdir(parents=True)
                with tarfile.open(path) as archive:
                    archive.extractall(self._unpacked, filter="data")
            self.wait()
        [folder] = self._unpacked.glob("checkpoint-*")
        saved_by, findings = stored.details["world_size"], self._session.findings
        self.way_back = TransformersWayBack(self.trainer, folder, saved_by, findings)
        self._newest = stored.step
        self.part.goes_on(stored.step)
        return str(folder)
