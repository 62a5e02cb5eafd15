"""What is hooked into torch once a script has imported it: loaders, optimizers, tqdm.

Only as far as positions need it; nothing is done in a step but counting it.
"""

import sys
from importlib import import_module
from typing import Any

from wrapt import register_post_import_hook, wrap_function_wrapper

from .tracker import Tracker, is_users_generator


def when_imported(tracker: Tracker, session: Any) -> None:
    """Hook into torch and tqdm when the script imports them."""
    register_post_import_hook(lambda module: _patch_torch(tracker, session), "torch")
    register_post_import_hook(lambda module: _patch_tqdm(), "tqdm.std")
    settings = session.settings
    hooks = {
        "lightning.pytorch": "lightning_patch",
        "transformers.trainer": "transformers_patch",
    }
    for module, patch in hooks.items():
        register_post_import_hook(_framework_hook(patch, settings, session), module)


def _framework_hook(patch: str, settings: Any, session: Any) -> Any:
    """Return what patches a framework, whose loops the rewriting cannot enter."""

    def hook(module: Any) -> None:
        import_module(f".{patch}", __package__).patch(settings, session)

    return hook


def _patch_torch(tracker: Tracker, session: Any) -> None:
    import torch.utils.data
    from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

    from . import iterators, loader_iterators, position
    from .way_into_generator import advance

    def make_iterator(wrapped: Any, loader: Any, args: Any, kwargs: Any) -> Any:
        return loader_iterators.begin(loader, wrapped)

    def made_optimizer(wrapped: Any, optimizer: Any, args: Any, kwargs: Any) -> None:
        wrapped(*args, **kwargs)
        session.begin(optimizer)

    wrap_function_wrapper(torch.utils.data.DataLoader, "__iter__", make_iterator)
    wrap_function_wrapper(Optimizer, "__init__", made_optimizer)
    register_optimizer_step_post_hook(lambda optimizer, args, kwargs: tracker.stepped())
    own = iterators.OWN
    own.is_one = lambda generator: is_users_generator(tracker, generator)
    own.describe = lambda generator, encode: position.of_generator(
        tracker, generator, encode.__self__, session.findings
    )
    own.advance = lambda generator, node: advance(tracker, generator, node)
    loader_iterators.on_finding = session.findings.add


def _patch_tqdm() -> None:
    from . import iterators

    def make_iterator(wrapped: Any, bar: Any, args: Any, kwargs: Any) -> Any:
        iterators.begin_bar(bar)
        return wrapped()

    wrap_function_wrapper(sys.modules["tqdm.std"], "tqdm.__iter__", make_iterator)
