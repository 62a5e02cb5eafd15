"""With which arguments hooks are called, and what is wrong with a project's own signature.

Lightning 2 passes what is in `CALLS`; parameters of earlier versions would get something else, or
nothing, and are refused by their names.
"""

import inspect
from typing import Any

from .overrides import Override


def _without_arguments(names: str) -> dict[str, tuple[str, ...]]:
    return dict.fromkeys(names.split(), ("",))


CALLS: dict[str, tuple[str, ...]] = {
    "training_step": ("batch batch_idx", "batch"),
    "validation_step": ("batch batch_idx", "batch batch_idx dataloader_idx", "batch"),
    **_without_arguments(
        "on_fit_start on_fit_end on_train_start on_train_end on_train_epoch_start "
        "on_train_epoch_end on_validation_start on_validation_end on_validation_epoch_start "
        "on_validation_epoch_end on_validation_model_eval on_validation_model_train "
        "on_validation_model_zero_grad on_after_backward configure_optimizers configure_model "
        "configure_callbacks prepare_data train_dataloader val_dataloader"
    ),
    "on_train_batch_start": ("batch batch_idx",),
    "on_train_batch_end": ("outputs batch batch_idx",),
    "on_validation_batch_start": ("batch batch_idx", "batch batch_idx dataloader_idx"),
    "on_validation_batch_end": (
        "outputs batch batch_idx",
        "outputs batch batch_idx dataloader_idx",
    ),
    "on_before_zero_grad": ("optimizer",),
    "on_before_backward": ("loss",),
    "on_before_optimizer_step": ("optimizer",),
    "backward": ("loss",),
    "optimizer_step": ("epoch batch_idx optimizer optimizer_closure",),
    "optimizer_zero_grad": ("epoch batch_idx optimizer",),
    "configure_gradient_clipping": ("optimizer gradient_clip_val= gradient_clip_algorithm=",),
    "lr_scheduler_step": ("scheduler metric",),
    "setup": ("stage=",),
    "teardown": ("stage=",),
    "on_before_batch_transfer": ("batch dataloader_idx",),
    "transfer_batch_to_device": ("batch device dataloader_idx",),
    "on_after_batch_transfer": ("batch dataloader_idx",),
    "on_save_checkpoint": ("checkpoint",),
    "on_load_checkpoint": ("checkpoint",),
    "on_exception": ("exception",),
}
"""Each hook's calls, the usual one first; `name=` is passed by its name, the others by place."""

_OLD_PARAMETERS = {
    "optimizer_idx": "optimizer_idx is gone since Lightning 2.0: set automatic_optimization "
    "to False and step each optimizer yourself, or drop it",
    "opt_idx": "the optimizer's number is gone since Lightning 2.0: drop it",
    "hiddens": "hiddens are gone since Lightning 2.0: keep them in an attribute, and divide the "
    "sequence in training_step",
    "outputs": "outputs of an epoch are gone since Lightning 2.0: keep what you need in an "
    "attribute during the steps",
    "dataloader_idx": "dataloader_idx is not passed here since Lightning 2.0: drop it",
    "on_tpu": "on_tpu is gone since Lightning 2.0: drop it",
    "using_native_amp": "using_native_amp is gone since Lightning 2.0: drop it",
    "using_lbfgs": "using_lbfgs is gone since Lightning 2.0: drop it",
}
_TAKES_LOADERS = (
    "it takes the loader's iterator, and a loop that does not see the batches cannot resume among "
    "them: take (batch, batch_idx)"
)


def mistake(override: Override, subject: Any) -> str | None:
    """Return what is wrong with the parameters of an override, and what to do; None if nothing.

    Args:
        override: Of a hook; others have no wrong parameters.
        subject: The instance, or its class.
    """
    calls = CALLS.get(override.name)
    signature = _signature(override, subject)
    if calls is None or signature is None:
        return None
    parameters = signature.parameters
    if "dataloader_iter" in parameters and override.name.endswith("_step"):
        return _TAKES_LOADERS
    if any(_fits(signature, call) for call in calls):
        return None
    passed = {word.rstrip("=") for call in calls for word in call.split()}
    for name, sentence in _OLD_PARAMETERS.items():
        if name in parameters and name not in passed:
            return sentence
    usual = ", ".join(f"{word}…" if word.endswith("=") else word for word in calls[0].split())
    taken = ", ".join(map(str, parameters.values()))
    return f"it takes ({taken}), but is called with ({usual}): change its parameters"


def _signature(override: Override, subject: Any) -> inspect.Signature | None:
    """Return how the override is called, without `self`; None where nobody can tell."""
    value = override.value
    if not callable(value) and not isinstance(value, classmethod | staticmethod):
        return None
    is_of_class = override.name not in vars(subject) or isinstance(subject, type)
    value = value.__func__ if isinstance(value, classmethod) else value
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return None
    if is_of_class and not isinstance(override.value, staticmethod):
        first = next(iter(signature.parameters.values()), None)
        if first is not None and first.kind in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD):
            return signature.replace(parameters=list(signature.parameters.values())[1:])
    return signature


def _fits(signature: inspect.Signature, call: str) -> bool:
    words = call.split()
    try:
        signature.bind(
            *(word for word in words if not word.endswith("=")),
            **{word[:-1]: None for word in words if word.endswith("=")},
        )
    except TypeError:
        return False
    return True
