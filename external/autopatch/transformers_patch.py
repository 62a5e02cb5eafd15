"""transformers' Trainer saves into the store, and goes on from its newest checkpoint.

A checkpoint is what the Trainer writes into `checkpoint-N`, as one tar file, with what the Trainer
itself leaves out, for each rank: sums of logged losses, generators, and where its loader stands.
"""

import contextlib
import shutil
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from wrapt import wrap_function_wrapper

from ..environment import ranks
from ..stores.lease_holder import holder
from ..stores.retention import Retention
from ..stores.store import Lease
from . import generators, loader_iterators, transformers_held, transformers_left_out
from .fetches import replay
from .framework_part import FrameworkPart
from .settings import AutopatchSettings
from .transformers_held import FOR_OURS
from .wish import Wish

FILE = "checkpoint.tar"
KEPT = Retention(newest=2)


def patch(settings: AutopatchSettings, session: Any) -> None:
    """Hook into `transformers.Trainer`, which is imported."""
    import torch
    import transformers.trainer
    from torch.nn.parallel import DistributedDataParallel
    from transformers import Trainer, TrainerCallback

    from ..exact.gradient_layout import may_change

    loader_iterators.FRAMEWORKS.have_loops = True
    parts = FrameworkPart.several("transformers", settings, session)
    going_on: list[dict[str, Any]] = []  # what is left to be put back, of the Trainer that trains

    class StoreCallback(TrainerCallback):
        """Saves when due, puts what the Trainer saved into the store, ends when asked to."""

        def __init__(self, trainer: Any) -> None:
            self.trainer = trainer
            self.part = next(parts)
            self.store = self.part.open()
            self.loader: Any = None
            self.held: Lease | None = None
            self.lease = contextlib.ExitStack()
            self.wish = Wish.NOTHING
            self.replaced: dict[str, Any] = {}
            self.epoch_ends = False
            self.unpacked: Path | None = None
            self.newest = -1  # the step that is saved

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            session.begin_aside()
            model = self.trainer.model_wrapped
            if isinstance(model, DistributedDataParallel) and may_change(model):
                session.findings.add(
                    "transformers.Trainer",
                    "with ddp_find_unused_parameters=False three or more processes add gradients "
                    "in another order in the first steps after an interruption; leave it away",
                )
            if self.unpacked is not None:  # all is loaded
                self.wait()
                if ranks().local_rank == 0:
                    shutil.rmtree(self.unpacked, ignore_errors=True)
                self.unpacked = None
            for saved in going_on:
                transformers_left_out.put_sums(self.trainer, saved)

        def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.epoch_ends = False

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.epoch_ends = abs(state.epoch - round(state.epoch)) < 1e-6
            if session.tracker.due and not self.epoch_ends:  # else behind what ends an epoch
                self.look(args, control)

        def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.epoch_ends = False
            if session.tracker.due:
                self.look(args, control)

        def look(self, args: Any, control: Any) -> None:
            """Let the Trainer save if that is due here."""
            self.wish = session.due.take()
            if self.wish == Wish.NOTHING:
                session.done_here(self.wish)
            if self.wish <= Wish.HOLD:
                return
            if not control.should_save:
                self.replaced = {name: getattr(args, name) for name in FOR_OURS}
                for name, value in FOR_OURS.items():
                    setattr(args, name, value)
            control.should_save = True

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            if not self.epoch_ends and not args.save_only_model:
                own = transformers_left_out.file_of(args.process_index)
                torch.save(self.left_out(), folder / own)
                self.wait()
                if args.process_index == 0:
                    self.put(folder, state.global_step)
            if self.replaced:
                for name, value in self.replaced.items():
                    setattr(args, name, value)
                self.wait()
                if args.process_index == 0:
                    shutil.rmtree(folder, ignore_errors=True)
                self.replaced = {}
            wish, self.wish = self.wish, Wish.NOTHING
            if wish:
                if wish == Wish.STOP:
                    self.close()
                session.done_here(wish)

        def hold(self) -> None:
            """Copy the state, behind what a step is followed by, if that is wanted."""
            if self.wish == Wish.HOLD:
                self.wish = Wish.NOTHING
                transformers_held.hold(session.held_aside, self.trainer, self.left_out())
                session.done_here(Wish.HOLD)

        def left_out(self) -> dict[str, Any]:
            """Return what the Trainer does not save itself, of this rank."""
            return transformers_left_out.take(self.trainer, self.loader)

        def wait(self) -> None:
            """Wait for the other ranks."""
            if self.trainer.args.world_size > 1:
                torch.distributed.barrier()

        def put(self, folder: Path, step: int) -> None:
            """Put a checkpoint's folder into the store."""
            if self.held is None:
                self.held = self.lease.enter_context(self.store.lease(holder()))
            with self.store.drafting() as draft:
                path = draft / FILE
                with tarfile.open(path, "w") as archive:
                    archive.add(folder, folder.name)
                details = {"framework": "transformers", "world_size": ranks().world_size}
                self.store.put(step, {FILE: path}, lease=self.held, move=True, details=details)
            self.store.prune(KEPT, lease=self.held)
            self.newest = step

        def close(self) -> None:
            """Let go of the store's lease."""
            self.held = None
            self.lease.close()

        def restore(self, output: Path) -> str | None:
            """Return the path of the newest checkpoint, unpacked by rank 0 of each machine."""
            with TemporaryDirectory(prefix="curitorch-") as temporary:
                found = self.store.fetch_newest_valid(FILE, Path(temporary))
                if found is None:
                    return None
                stored, path = found
                self.unpacked = output / f".curitorch-{ranks().rank - ranks().local_rank}"
                if ranks().local_rank == 0:
                    self.unpacked.mkdir(parents=True, exist_ok=True)
                    with tarfile.open(path) as archive:
                        archive.extractall(self.unpacked, filter="data")
                self.wait()
            folder = self.unpacked / f"checkpoint-{stored.step}"
            own = folder / transformers_left_out.file_of(self.trainer.args.process_index)
            if own.exists():
                going_on[:] = [torch.load(own, weights_only=True)]
            if stored.details["world_size"] != ranks().world_size:
                going_on.clear()
                session.findings.add(
                    "transformers.Trainer",
                    f"it was saved by {stored.details['world_size']} processes, here are "
                    f"{ranks().world_size}: its epochs have another number of steps",
                )
            self.newest = stored.step
            self.part.goes_on(stored.step)
            return str(folder)

    def made(wrapped: Any, trainer: Any, args: Any, kwargs: Any) -> None:
        session.step_aside()
        wrapped(*args, **kwargs)
        trainer._curitorch = StoreCallback(trainer)
        trainer.add_callback(trainer._curitorch)

    def train(wrapped: Any, trainer: Any, args: Any, kwargs: Any) -> Any:
        own = trainer._curitorch
        own.part.begin(trainer.args.process_index)
        own.wait()
        try:
            if args or kwargs.get("resume_from_checkpoint"):
                session.findings.add(
                    "transformers.Trainer.train",
                    "the script gives a resume_from_checkpoint of its own, from which it goes on",
                )
                return wrapped(*args, **kwargs)
            if own.part.is_used:
                return wrapped(*args, **kwargs)
            path = own.restore(Path(trainer.args.output_dir))
            if path is not None:
                kwargs = {**kwargs, "resume_from_checkpoint": path}
            return wrapped(*args, **kwargs)
        except BaseException:
            if session.held_aside is not None:
                transformers_held.save(session.held_aside, trainer, own.newest, own.put)
            raise
        finally:
            going_on.clear()
            own.close()
            own.part.ended(trainer.state.global_step, trainer.args.process_index)

    def finish_step(wrapped: Any, trainer: Any, args: Any, kwargs: Any) -> None:
        wrapped(*args, **kwargs)
        trainer._curitorch.hold()

    def skip(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        """Return the loader itself, which is led to where it stood as it is iterated over."""
        loader = getattr(args[0], "base_dataloader", None)
        if not going_on or going_on[0]["position"] is None or loader is None:
            return wrapped(*args, **kwargs)
        loader_iterators.FRAMEWORKS.rebuild = (loader, lambda: rebuilt(loader))
        return args[0]

    def rebuilt(loader: Any) -> Any:
        saved = going_on[0]
        node = saved["position"]
        it = loader_iterators.rebuild(node, loader, 1)
        if node["fetches"]:
            replay(it, node["fetches"][-1:], saved["rng"])
            saved["is_replayed"] = True
        return it

    def make_loader(wrapped: Any, trainer: Any, args: Any, kwargs: Any) -> Any:
        loader = wrapped(*args, **kwargs)
        trainer._curitorch.loader = getattr(loader, "base_dataloader", loader)
        return loader

    def load_generators(wrapped: Any, trainer: Any, args: Any, kwargs: Any) -> None:
        """Put the generators back, unless a fetch of a batch that was fetched already does."""
        if not going_on:
            wrapped(*args, **kwargs)
            return
        if "is_replayed" not in going_on[0]:
            generators.put(going_on[0]["rng"])
        trainer._curitorch.part.arrived()

    wrap_function_wrapper(Trainer, "__init__", made)
    wrap_function_wrapper(Trainer, "train", train)
    wrap_function_wrapper(Trainer, "get_train_dataloader", make_loader)
    wrap_function_wrapper(Trainer, "_maybe_log_save_evaluate", finish_step)
    wrap_function_wrapper(Trainer, "_load_rng_state", load_generators)
    wrap_function_wrapper(transformers.trainer, "skip_first_batches", skip)
