"""What the lean loop does with every public name of LightningModule and LightningDataModule.

The one table of support, and an allow-list: a name that a project overrides and that is not in
here is refused. A test walks `dir()` of the installed Lightning and finds each name here; the
matrix in docs/adapter.md is made of it, see `support_matrix`.
"""

from dataclasses import dataclass
from typing import Literal

from .removed_hooks import REMOVED_OF_DATA, REMOVED_OF_MODULES, Removed

Owner = Literal["module", "datamodule", "both"]
Verdict = Literal["supported", "warned", "refused"]


@dataclass(frozen=True)
class Support:
    """What becomes of one name.

    Attributes:
        owner: Who has it: a LightningModule, a LightningDataModule, or both.
        verdict: "supported": as under Lightning's Trainer. "warned": left out, which is said once.
            "refused": a project that overrides it is not trained.
        reason: What the loop does, or why it does not.
        remedy: What to do instead; empty for what is supported.
        fixed: Supported as Lightning defines it, but to override it is refused.
    """

    owner: Owner
    verdict: Verdict
    reason: str
    remedy: str = ""
    fixed: bool = False


def _supported(owner: Owner, reason: str, names: str) -> dict[str, Support]:
    return {name: Support(owner, "supported", reason) for name in names.split()}


def _fixed(owner: Owner, reason: str, remedy: str, names: str) -> dict[str, Support]:
    return {name: Support(owner, "supported", reason, remedy, fixed=True) for name in names.split()}


def _warned(owner: Owner, reason: str, remedy: str, names: str) -> dict[str, Support]:
    return {name: Support(owner, "warned", reason, remedy) for name in names.split()}


def _removed(owner: Owner, hooks: dict[str, Removed]) -> dict[str, Support]:
    return {
        name: Support(
            owner,
            "refused",
            f"Lightning {removed.since} removed it, and Lightning 2 does not call it",
            removed.remedy,
        )
        for name, removed in hooks.items()
    }


_TEST = "training does not run it"
_TEST_REMEDY = "load the model and test it with lightning.Trainer"

SUPPORT: dict[str, Support] = {
    # Steps
    **_supported(
        "module",
        "(batch[, batch_idx]) gives a tensor, a mapping with 'loss', or None to skip the batch",
        "training_step",
    ),
    **_supported(
        "module",
        "(batch[, batch_idx[, dataloader_idx]]), without gradients, in evaluation mode",
        "validation_step",
    ),
    **_supported("module", "untouched; steps may call it", "forward"),
    **_warned("module", _TEST, _TEST_REMEDY, "test_step predict_step"),
    # Optimisation
    **_supported(
        "module",
        "every form of Lightning 2.6; several optimizers with manual optimisation",
        "configure_optimizers",
    ),
    **_supported(
        "module",
        "called once before the optimizers; must not build the model twice",
        "configure_model",
    ),
    **_supported("module", "True or False, as attribute or property", "automatic_optimization"),
    **_supported(
        "module",
        "called in Lightning's place and order, with its arguments",
        "backward on_before_backward on_after_backward on_before_zero_grad optimizer_zero_grad "
        "on_before_optimizer_step configure_gradient_clipping clip_gradients lr_scheduler_step",
    ),
    **_supported(
        "module",
        "has to call its closure, or nothing is trained; refused with exact='world'",
        "optimizer_step",
    ),
    **_supported(
        "module",
        "as under Lightning's Trainer",
        "manual_backward optimizers lr_schedulers toggle_optimizer untoggle_optimizer "
        "toggled_optimizer",
    ),
    # Places in the loop
    **_supported(
        "module",
        "called in Lightning's order, if overridden",
        "on_fit_start on_fit_end on_train_start on_train_end on_train_epoch_start "
        "on_train_epoch_end on_train_batch_start on_train_batch_end on_validation_start "
        "on_validation_end on_validation_epoch_start on_validation_epoch_end "
        "on_validation_batch_start on_validation_batch_end on_validation_model_eval "
        "on_validation_model_train on_validation_model_zero_grad",
    ),
    **_warned(
        "module",
        _TEST,
        _TEST_REMEDY,
        "on_test_start on_test_end on_test_epoch_start on_test_epoch_end on_test_batch_start "
        "on_test_batch_end on_test_model_eval on_test_model_train on_predict_start on_predict_end "
        "on_predict_epoch_start on_predict_epoch_end on_predict_batch_start on_predict_batch_end "
        "on_predict_model_eval",
    ),
    # Data
    **_supported("both", "before the fit, on one process of each machine", "prepare_data"),
    **_supported("both", "False: on one process of all", "prepare_data_per_node"),
    **_supported(
        "both",
        "of no effect: our order gives every process the same number of batches",
        "allow_zero_length_dataloader_with_multiple_devices",
    ),
    **_supported("both", "of the data module first, with stage='fit'", "setup teardown"),
    **_supported(
        "both",
        "plain loaders are put on our order of samples; others keep theirs, see docs/trainers.md",
        "train_dataloader val_dataloader",
    ),
    **_warned("both", _TEST, _TEST_REMEDY, "test_dataloader predict_dataloader"),
    **_supported(
        "both",
        "for each batch; the data module's, if both override it, which is said",
        "on_before_batch_transfer transfer_batch_to_device on_after_batch_transfer",
    ),
    **_supported("datamodule", "called with what ends the fit", "on_exception"),
    **_supported("datamodule", "untouched", "from_datasets name"),
    # State
    **_supported("module", "called with the checkpoint", "on_save_checkpoint on_load_checkpoint"),
    **_supported(
        "both",
        "a module's is the model's state; a data module's goes into the checkpoint under its name",
        "state_dict load_state_dict",
    ),
    **_supported("module", "honoured when a checkpoint is loaded", "strict_loading"),
    **_supported(
        "both",
        "into the checkpoint, under Lightning's keys",
        "save_hyperparameters hparams hparams_initial remove_ignored_hparams load_from_checkpoint "
        "CHECKPOINT_HYPER_PARAMS_KEY CHECKPOINT_HYPER_PARAMS_NAME CHECKPOINT_HYPER_PARAMS_TYPE",
    ),
    # What a module may ask and say
    **_fixed(
        "module",
        "all options, with the values that Lightning gives",
        "give the method another name and call self.log in it",
        "log",
    ),
    **_fixed(
        "both",
        "a stand-in with the attributes that code commonly asks for; it names what it lacks",
        "use another name: the loop sets this one",
        "trainer",
    ),
    **_fixed("module", "None, as under Lightning's Trainer", "use another name", "fabric"),
    **_supported(
        "module",
        "as under Lightning's Trainer",
        "current_epoch global_step global_rank local_rank device dtype on_gpu device_mesh logger "
        "loggers log_dict print all_gather freeze unfreeze",
    ),
    **_supported(
        "module",
        "untouched",
        "example_input_array to_onnx to_torchscript to_tensorrt",
    ),
    **_warned(
        "module",
        "the loop runs no callbacks; it shows progress and checkpoints itself, and refuses those "
        "that are more than a display",
        "put a callback's code into hooks of the module",
        "configure_callbacks",
    ),
    "configure_sharded_model": Support(
        "module", "refused", "deprecated since Lightning 2.2", "rename it to configure_model"
    ),
    # Of torch.nn.Module
    **_supported(
        "module",
        "torch.nn.Module's own, untouched",
        "T_destination add_module apply bfloat16 buffers call_super_init children compile cpu cuda "
        "double dump_patches eval extra_repr float get_buffer get_extra_state get_parameter "
        "get_submodule half ipu modules mtia named_buffers named_children named_modules "
        "named_parameters parameters register_backward_hook register_buffer register_forward_hook "
        "register_forward_pre_hook register_full_backward_hook register_full_backward_pre_hook "
        "register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module "
        "register_parameter register_state_dict_post_hook register_state_dict_pre_hook "
        "requires_grad_ set_extra_state set_submodule share_memory to to_empty train training type "
        "xpu zero_grad",
    ),
    # What Lightning 2 ignores without a word
    **_removed("module", REMOVED_OF_MODULES),
}

# on_save_checkpoint and on_load_checkpoint are live for modules, and removed for data modules.
REMOVED_FOR_DATA: dict[str, Support] = _removed("datamodule", REMOVED_OF_DATA)


def support(name: str, owner: Literal["module", "datamodule"]) -> Support | None:
    """Return what the loop does with `name` of a module or a data module; None if unknown."""
    if owner == "datamodule" and name in REMOVED_FOR_DATA:
        return REMOVED_FOR_DATA[name]
    found = SUPPORT.get(name)
    return found if found is not None and found.owner in (owner, "both") else None
