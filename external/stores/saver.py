"""Saving training states into a store: at once, or staged and written in the background.

saver = Saver(open_store("local", "root=/data/ckpt"), asynchronous=True)
saver.save(120, {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
saver.close()
"""

from collections.abc import Callable, Mapping
from typing import Any

from ..checkpoint import FILE
from .local import LocalStore
from .retention import Retention
from .saving.background import BackgroundWriter
from .saving.owned import OptimizerWatch
from .saving.sharing_target import SharingTarget
from .saving.target import StoreTarget
from .saving.torch_image import lay_out
from .store import Lease, Store, StoredCheckpoint, StoreError, check_step


class Saver:
    """Makes each saved state a checkpoint of one torch file.

    Not to be used by two threads at once.

    Args:
        store: Where checkpoints go; not closed here.
        asynchronous: `save` returns once the tensors are copied into reused memory; a process of
            its own writes, which lives on when this one is killed. One save is under way at a
            time. An error is raised by the next call, whichever it is.
        deferred: With `asynchronous`: `save` copies only what no optimizer owns; parameters and
            optimizer states are copied during the next forward and backward pass, and the next
            step of any optimizer waits for that. Whatever else changes them calls `hold` first;
            what did not ask is found out, and that save fails.
        lease: The right to write to the store.
        retention: What stays once a newer checkpoint is durable and verified; None keeps all.
        share_unchanged: Do not write big tensors again that are as in the checkpoint before (of a
            frozen backbone, say), but share the file that has them, as long as one checkpoint
            needs it. Such a checkpoint has no `model.ckpt` of its own: `fetch` puts it together,
            and so does `whole.materialise`. For a `LocalStore`; another one gets plain files.

    Raises:
        ValueError: `deferred` without `asynchronous`.
    """

    def __init__(
        self,
        store: Store,
        *,
        asynchronous: bool = False,
        deferred: bool = False,
        lease: Lease | None = None,
        retention: Retention | None = None,
        share_unchanged: bool = False,
    ) -> None:
        if deferred and not asynchronous:
            raise ValueError("deferred=True without asynchronous=True. Give both, or neither.")
        self.store = store
        self._target: StoreTarget
        if share_unchanged and isinstance(store, LocalStore):
            self._target = SharingTarget(store, lease=lease, retention=retention)
        else:
            self._target = StoreTarget(store, lease=lease, retention=retention)
        self._asynchronous = asynchronous
        self._watch = OptimizerWatch() if deferred else None
        self._background: BackgroundWriter | None = None

    def save(
        self,
        step: int,
        state: object,
        *,
        details: Mapping[str, Any] | None = None,
        name: str = FILE,
        then: Callable[[StoredCheckpoint], None] = lambda stored: None,
    ) -> None:
        """Save `state` as the checkpoint of `step`; it may change when the call returns.

        Args:
            step: Optimizer steps done.
            state: What `torch.save` would take.
            details: Plain JSON data for the sidecar.
            name: Of the file.
            then: Called when the checkpoint is durable: in the caller's thread, at once or by a
                later call.

        Raises:
            CheckpointExists: There is another valid checkpoint of that step.
            LeaseLost: Somebody else writes to the store now.
            OSError, StoreError: It, or an earlier one in the background, could not be written; the
                checkpoints before are as they were.
        """
        request = {"step": check_step(step), "name": name, "details": dict(details or {})}
        if self._asynchronous:
            self._background = self._background or BackgroundWriter(self._target, watch=self._watch)
            self._background.save(state, request, what=f"Saving step {step}", then=then)
            return
        then(self._target.write(lay_out(state), request))

    @property
    def is_busy(self) -> bool:
        """Whether a save is under way, as far as `poll` and `wait` have seen."""
        return self._background is not None and self._background.is_busy

    def hold(self) -> None:
        """Return when every tensor may change, also where `deferred` is still copying."""
        if self._background is not None:
            self._background.hold()

    def poll(self) -> None:
        """Take note of what is durable meanwhile, without waiting.

        Raises:
            OSError, StoreError: A save failed.
        """
        if self._background is not None:
            self._background.poll()

    def wait(self) -> None:
        """Wait until all is durable.

        Raises:
            OSError, StoreError: A save failed.
        """
        if self._background is not None:
            self._background.wait()

    def close(self) -> None:
        """Wait, and give memory and process back; saving again begins anew.

        Raises:
            OSError, StoreError: A save failed.
        """
        if self._background is not None:
            background, self._background = self._background, None
            background.close()


def failure_of(act: Callable[[], object]) -> Exception | None:
    """Return why `act`, which saves or waits for a save, failed; None if it did not."""
    try:
        act()
    except (OSError, StoreError) as error:
        return error
    return None
