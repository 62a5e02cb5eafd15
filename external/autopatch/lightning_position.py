"""A Lightning callback: where the script's own loaders and generators stand, and back there.

`PeriodicCheckpoint` and `ExactResume` bring the loops, weights and logged values back; the order
of samples is the script's own here, drawn from the global generators. In a checkpoint:

    {"batches": 3, "world_size": 1, "layout": null,
     "ranks": [{"rng": {…}, "loaders": [{…}], "consumed": [False]}]}

`layout` is that of gradients, see `gradient_layout`.
"""

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.nn.parallel import DistributedDataParallel

from ..exact import gradient_layout
from ..exact.exact_resume import install
from ..exact.rank_parts import gathered
from . import generators, iterators, loader_iterators
from .fetches import replay
from .findings import Findings

KEY = "curitorch_autopatch"


class LightningPosition(Callback):
    """The first of a Trainer's callbacks: it sees each boundary before anything happens at it."""

    def __init__(self, findings: Findings, arrived: Callable[[], None]) -> None:
        self._findings = findings
        self._arrived = arrived
        self._rng: dict[str, Any] | None = None
        self._batches: int | None = None  # of the epoch, whose next is fetched; None: no epoch yet
        self._saved: dict[str, Any] | None = None
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
        if saved["world_size"] != trainer.world_size or len(saved["ranks"]) != trainer.world_size:
            self._findings.add(
                "lightning.pytorch.Trainer",
                f"it was saved by {saved['world_size']} processes, here are {trainer.world_size}: "
                "the epoch under way begins anew in its middle",
            )
            return
        own = saved["ranks"][trainer.global_rank]
        self._saved = {**own, "batches": saved["batches"], "layout": saved.get("layout")}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Be called where an epoch's iterators are made."""
        self._lay_out_gradients(trainer)
        if self._attached is trainer:
            return
        self._attached = trainer
        epoch_loop = trainer.fit_loop.epoch_loop
        begin_batches = epoch_loop.on_run_start

        def on_run_start(data_fetcher: Any) -> None:
            before = data_fetcher.iterator
            made = data_fetcher.combined_loader._iterator
            begin_batches(data_fetcher)
            saved, self._saved = self._saved, None
            if saved is None:
                return
            self._arrived()
            if saved["batches"] is not None:
                _rebuild(data_fetcher, saved, self._findings)
            elif data_fetcher.combined_loader._iterator is made and before is not None:
                iter(data_fetcher)  # Lightning made it before the generators were put back

        epoch_loop.on_run_start = on_run_start  # type: ignore[method-assign]

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

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A boundary, where no iterator of the epoch is made yet."""
        if self._saved is not None:
            generators.put(self._saved["rng"])
            self._arrived()
        self._rng, self._batches = generators.take(), None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        """A boundary, behind the fetch of a batch."""
        self._rng, self._batches = generators.take(), batch_idx

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """There is no batch any more."""
        self._rng, self._batches = generators.take(), None

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """From here no rank waits for another."""
        self._failed = isinstance(exception, Exception)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the last boundary's; all ranks come here."""
        if trainer.state.fn != "fit" or self._rng is None:
            return
        own: dict[str, Any] = {"rng": self._rng, "loaders": [], "consumed": [], "index": 0}
        fetcher = trainer.fit_loop._data_fetcher
        if self._batches is not None and fetcher is not None:
            assert fetcher.combined_loader._iterator is not None
            iterator = fetcher.combined_loader._iterator
            own["consumed"] = list(getattr(iterator, "_consumed", []))
            own["index"] = iterator._idx
            own["ahead"] = len(getattr(fetcher, "batches", []))
            own["loaders"] = [
                loader_iterators.describe(each) if loader_iterators.is_one(each) else None
                for each in iterator.iterators
            ]
        checkpoint[KEY] = {
            "batches": self._batches,
            "world_size": trainer.world_size,
            "layout": gradient_layout.layout_of(trainer.strategy.model)
            if isinstance(trainer.strategy.model, DistributedDataParallel)
            else None,
            "ranks": [own] if self._failed else gathered(trainer, own),
        }


def _rebuild(fetcher: Any, saved: dict[str, Any], findings: Findings) -> None:
    """Let a fetcher give the batch that was fetched last, and go on from there."""
    iterator, back = fetcher.combined_loader._iterator, 1 + saved["ahead"]
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
        if node["fetches"]:
            replay(fresh, node["fetches"][-back:], None)
    if hasattr(iterator, "_consumed"):
        iterator._consumed = list(saved["consumed"])
    iterator._idx = saved["index"] - back
    generators.put(saved["rng"])
    if saved["ahead"]:
        fetcher.batches = [super(type(fetcher), fetcher).__next__() for _ in range(saved["ahead"])]
