"""transformers' Trainer saves into the store, and goes on from its newest checkpoint.

A checkpoint is what the Trainer writes into `checkpoint-N`, as one tar file, with the sums of
logged losses of each rank, which the Trainer itself leaves out.
"""

import json
import shutil
import signal
import tarfile
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

from wrapt import wrap_function_wrapper

from ..environment import ranks
from ..stores.retention import Retention
from .findings import LOG
from .settings import AutopatchSettings
from .stop_signal import end_by

FILE = "checkpoint.tar"
_PART = "transformers"
_SUMS = ("_tr_loss", "_total_loss_scalar", "_globalstep_last_logged")


def patch(settings: AutopatchSettings, session: Any) -> None:
    """Hook into `transformers.Trainer`, which is imported."""
    import torch
    from transformers import Trainer, TrainerCallback

    class StoreCallback(TrainerCallback):
        """Saves when due, puts what the Trainer saved into the store, ends when asked to."""

        def __init__(self, trainer: Any) -> None:
            self.trainer = trainer
            self.store = settings.for_part(_PART).open()
            self.stop = False
            self.folder: Path | None = None
            self.saved_at = time.monotonic()
            self.saved_step = 0
            self.ours = False

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            signal.signal(signal.SIGTERM, self.asked_to_stop)
            if self.folder is not None:
                sums = json.loads((self.folder / _sums_of(args.process_index)).read_text())
                for name, value in sums.items():
                    old = getattr(self.trainer, name)
                    is_tensor = isinstance(old, torch.Tensor)
                    setattr(self.trainer, name, old.new_tensor(value) if is_tensor else value)
                if args.process_index == 0:
                    shutil.rmtree(self.folder, ignore_errors=args.world_size > 1)
                self.folder = None

        def asked_to_stop(self, number: int, frame: FrameType | None) -> None:
            self.stop = True

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seconds, steps = settings.every_seconds, settings.every_steps
            due = self.stop or (steps is not None and state.global_step - self.saved_step >= steps)
            due = due or (seconds is not None and time.monotonic() - self.saved_at >= seconds)
            if args.world_size > 1:
                agreed = torch.tensor([int(due), int(self.stop)], device=args.device)
                torch.distributed.all_reduce(agreed, op=torch.distributed.ReduceOp.MAX)
                due, self.stop = bool(agreed[0]), bool(agreed[1])
            # At an epoch's end the Trainer draws for the next one before it restores generators.
            ends_epoch = abs(state.epoch - round(state.epoch)) < 1e-6
            if due and not (ends_epoch and state.global_step < state.max_steps):
                self.ours = not control.should_save
                control.should_save = True

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            sums = {name: _plain(getattr(self.trainer, name)) for name in _SUMS}
            (folder / _sums_of(args.process_index)).write_text(json.dumps(sums))
            if args.world_size > 1:
                torch.distributed.barrier()
            if args.process_index == 0:
                self.put(folder, state.global_step)
            if args.world_size > 1:
                torch.distributed.barrier()
            self.saved_at, self.saved_step = time.monotonic(), state.global_step
            if self.stop:
                self.store.close()
                end_by(signal.SIGTERM)

        def put(self, folder: Path, step: int) -> None:
            with self.store.drafting() as draft:
                path = draft / FILE
                with tarfile.open(path, "w") as archive:
                    archive.add(folder, folder.name)
                self.store.put(step, {FILE: path}, move=True, details={"framework": _PART})
            self.store.prune(Retention(newest=2))
            if self.ours:
                shutil.rmtree(folder)

        def restore(self, output: Path) -> str | None:
            """Return the path of the newest checkpoint, unpacked on rank 0 of each machine."""
            with TemporaryDirectory(prefix="curitorch-") as temporary:
                found = self.store.fetch_newest_valid(FILE, Path(temporary))
                if found is None:
                    return None
                stored, path = found
                self.folder = output / f"checkpoint-{stored.step}"
                if ranks().local_rank == 0:
                    output.mkdir(parents=True, exist_ok=True)
                    with tarfile.open(path) as archive:
                        archive.extractall(output, filter="data")
            if ranks().world_size > 1:
                torch.distributed.barrier()
            LOG.warning("Goes on at step %d, where it was saved.", stored.step)
            session.findings.add(
                "transformers.Trainer",
                "weights, optimizer and logged sums go on, but the samples' order and what is "
                "random are restored by the Trainer itself, not always bitwise",
            )
            return str(self.folder)

    def made(wrapped: Any, trainer: Any, args: Any, kwargs: Any) -> None:
        session.step_aside()
        wrapped(*args, **kwargs)
        trainer._curitorch = StoreCallback(trainer)
        trainer.add_callback(trainer._curitorch)

    def train(wrapped: Any, trainer: Any, args: Any, kwargs: Any) -> Any:
        if not args and not kwargs.get("resume_from_checkpoint"):
            path = trainer._curitorch.restore(Path(trainer.args.output_dir))
            if path is not None:
                kwargs = {**kwargs, "resume_from_checkpoint": path}
        return wrapped(*args, **kwargs)

    wrap_function_wrapper(Trainer, "__init__", made)
    wrap_function_wrapper(Trainer, "train", train)


def _sums_of(rank: int) -> str:
    return f"curitorch-sums-{rank}.json"


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
