"""A Lightning callback: where the script's own loaders and generators stand, and back there.

`PeriodicCheckpoint` and `ExactResume` bring the loops, weights and logged values back; the order
of samples is the script's own here, drawn from the global generators. In a checkpoint:

    {"batches": 3, "world_size": 1, "layout": null,
     "ranks": [{"rng": {…}, "loaders": [{…}], "consumed": [False], "fetched": 1}]}

`layout` is that of gradients, see `gradient_layout`.
"""

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from ..exact import gradient_layout
from ..exact.exact_resume import install
from ..exact.rank_parts import gathered
from . import generators, iterators, loader_iterators
from .fetches import replay
from .findings import Findings
from .lightning_boundary import LightningBoundary
from .loader_iterators import FRAMEWORKS
from .rest_of_epoch import rest_of_epoch

KEY = "curitorch_autopatch"


class LightningPosition(Callback):
    """The first of a Trainer's callbacks: it sees each boundary before anything happens at it."""

    def __init__(self, findings: Findings, arrived: Callable[[], None]) -> None:
        self._findings = findings
        self._arrived = arrived
        self._here: LightningBoundary | None = None
        self._clean: LightningBoundary | None = None  # the last between two optimizer steps
        self._step = -1
        self._saved: dict[str, Any] | None = None
        self._saved_by = 0  # so many processes
        self._failed = False
        self._attached: Trainer | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the strategy be as the script has it."""
        if stage == "fit":
            install(trainer, first_buckets=False)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take this rank's part."""
        saved = checkpoint.get(KEY)
        if saved is None:
            return
        self._saved_by = saved["world_size"]
        parts = saved["ranks"]  # only of rank 0, if it saved alone after an error
        own = dict(parts[trainer.global_rank % len(parts)])
        if self._saved_by != trainer.world_size:  # all divide the order of one
            own["loaders"] = parts[0]["loaders"]
        elif len(parts) != self._saved_by:
            self._findings.add(
                "lightning.pytorch.Trainer",
                "rank 0 saved alone, after an error: the others go on with its generators",
            )
        self._saved = {**own, "batches": saved["batches"], "layout": saved.get("layout")}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Be called where an epoch's iterators are made."""
        self._lay_out_gradients(trainer)
        self._divide_anew(trainer)
        if self._attached is trainer:
            return
        self._attached = trainer
        epoch_loop = trainer.fit_loop.epoch_loop
        begin_batches = epoch_loop.on_run_start

        def on_run_start(data_fetcher: Any) -> None:
            before = data_fetcher.iterator
            made = data_fetcher.combined_loader._iterator
            saved, self._saved = self._saved, None
            if saved is not None:
                self._arrived()
                if saved["batches"] is not None:  # or else hooks have drawn since the epoch began
                    generators.put(saved["rng"])  # for a validation that may be left to do
            begin_batches(data_fetcher)
            if saved is None:
                return
            if saved["batches"] is not None:
                _rebuild(data_fetcher, saved, self._findings)
            elif data_fetcher.combined_loader._iterator is made and before is not None:
                iter(data_fetcher)  # Lightning made it before the generators were put back

        validate = epoch_loop.val_loop.run

        def run() -> Any:  # a boundary: a stop does not wait for the end of a validation
            batch = None if self._here is None else self._here.batch
            self._here = LightningBoundary.here(trainer, batch, fetched=0)
            return validate()

        epoch_loop.on_run_start = on_run_start  # type: ignore[method-assign]
        epoch_loop.val_loop.run = run  # type: ignore[method-assign]

    def _lay_out_gradients(self, trainer: Trainer) -> None:
        model = trainer.strategy.model
        if not isinstance(model, DistributedDataParallel):
            return
        if gradient_layout.may_change(model) and not gradient_layout.can_be_kept(model):
            self._findings.add(
                "lightning.pytorch.Trainer",
                "with static_graph three or more processes add gradients in another order in the "
                "first steps after an interruption; leave static_graph away",
            )
        if self._saved is not None and self._saved["layout"] is not None:
            gradient_layout.put_layout(model, self._saved["layout"])

    def _divide_anew(self, trainer: Trainer) -> None:
        """Let the loops stand as many batches before the end of the epoch as are left of it."""
        saved = self._saved
        if saved is None or saved["batches"] is None or self._saved_by == trainer.world_size:
            return
        loop = trainer.fit_loop
        assert loop._combined_loader is not None
        loaders, total = loop._combined_loader.flattened, loop.max_batches
        every, back = trainer.accumulate_grad_batches, saved["fetched"] + saved["ahead"]

        def number_of_batches(least: int) -> int:  # the steps end where those of the epoch do
            return int(min(total, least + (total - least) % every))

        found, nodes = None, saved["loaders"]
        if len(loaders) == 1 and None not in nodes and isinstance(loaders[0], DataLoader):
            FRAMEWORKS.number_of_batches = number_of_batches
            done = nodes[0]["yielded"] - back
            found = rest_of_epoch(nodes[0], loaders[0], done, number_of_batches)
        if found is None:
            self._findings.add(
                "lightning.pytorch.Trainer",
                f"it was saved by {self._saved_by} processes, here are {trainer.world_size}, and "
                "the order of its samples cannot be divided anew: the epoch under way begins anew "
                "in its middle",
            )
            self._saved = None
            return
        progress = loop.epoch_loop.batch_progress.current
        if total == len(loaders[0]):  # else it has a limit, and so many are done
            batches = int(total) - len(found[0].batches) + found[1]
            progress.ready = progress.started = batches  # type: ignore[attr-defined]
            progress.processed = progress.completed = batches  # type: ignore[attr-defined]
        nodes[0]["fetches"] = []
        saved["index"] = progress.completed + back

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A boundary, where no iterator of the epoch is made yet."""
        if self._saved is not None:
            generators.put(self._saved["rng"])
            self._arrived()
        self._reach(trainer, None)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        """A boundary, behind the fetch of a batch."""
        self._reach(trainer, batch_idx)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """There is no batch any more."""
        self._reach(trainer, None)

    def _reach(self, trainer: Trainer, batch: int | None) -> None:
        self._here = LightningBoundary.here(trainer, batch, fetched=1)
        if trainer.global_step != self._step:  # or else within an accumulation
            self._step, self._clean = trainer.global_step, self._here

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """From here no rank waits for another."""
        self._failed = isinstance(exception, Exception)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the last boundary's; all ranks come here."""
        boundary = self._clean if self._failed else self._here
        if trainer.state.fn != "fit" or boundary is None:
            return
        own = boundary.described(trainer)
        checkpoint[KEY] = {
            "batches": boundary.batch,
            "world_size": trainer.world_size,
            "layout": gradient_layout.layout_of(trainer.strategy.model)
            if isinstance(trainer.strategy.model, DistributedDataParallel)
            else None,
            "ranks": [own] if self._failed else gathered(trainer, own),
        }


def _rebuild(fetcher: Any, saved: dict[str, Any], findings: Findings) -> None:
    """Let a fetcher give the batch that was fetched last if it is left, and go on from there."""
    iterator, back = fetcher.combined_loader._iterator, saved["fetched"] + saved["ahead"]
    now = generators.take()
    for number, node in enumerate(saved["loaders"]):
        old = iterator.iterators[number]
        if node is None or not loader_iterators.is_one(old):
            findings.add(
                "lightning.pytorch.Trainer",
                f"a training loader of type {type(iterator.iterables[number]).__name__} goes on "
                "by taking its first items again, which is exact only if they are the same",
            )
            iterators.rebuild({"k": "counted", "used": saved["index"]}, old, back)
            continue
        fresh = loader_iterators.rebuild(node, old, back)
        iterator.iterators[number] = fresh
        if node["fetches"] and back:
            replay(fresh, node["fetches"][-back:], None)
    if hasattr(iterator, "_consumed"):
        iterator._consumed = list(saved["consumed"])
    iterator._idx = saved["index"] - back
    generators.put(saved["rng"] if saved["fetched"] else now)
    if saved["ahead"]:
        fetcher.batches = [super(type(fetcher), fetcher).__next__() for _ in range(saved["ahead"])]
