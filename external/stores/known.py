"""Nothing is trained past a checkpoint that only another curitorch can read."""

from .store import Store, StoreError


def check_known(store: Store, newest: int | None) -> None:
    """Refuse a store whose newest checkpoint is for another curitorch.

    Training that begins before it would do its steps again, only to be refused where it saves.

    Args:
        store: Where training goes on.
        newest: The step that it goes on from; None for the beginning.

    Raises:
        StoreError: There is such a checkpoint, of a higher step.
    """
    beyond = {step: why for step, why in store.unknown().items() if newest is None or step > newest}
    if beyond:
        step = max(beyond)
        raise StoreError(
            f"The newest checkpoint, of step {step}, is for another curitorch: {beyond[step]} "
            "Or train in another place: this one was not touched."
        )
