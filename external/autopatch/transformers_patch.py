"""transformers' Trainer saves into the store, and goes on from its newest checkpoint.

Its callback saves (`transformers_callback`); what it does not tell callbacks is hooked into here.
"""

from pathlib import Path
from typing import Any

from wrapt import wrap_function_wrapper

from . import loader_iterators
from .framework_part import FrameworkPart
from .settings import AutopatchSettings


def patch(settings: AutopatchSettings, session: Any) -> None:
    """Hook into `transformers.Trainer`, which is imported."""
    import transformers.trainer
    from transformers import Trainer

    from .transformers_callback import StoreCallback

    loader_iterators.FRAMEWORKS.have_loops = True
    parts = FrameworkPart.several("transformers", settings, session)
    training: list[StoreCallback] = []

    def made(wrapped: Any, trainer: Any, args: Any, kwargs: Any) -> None:
        session.step_aside()
        wrapped(*args, **kwargs)
        trainer._curitorch = StoreCallback(trainer, next(parts), session)
        trainer.add_callback(trainer._curitorch)

    def train(wrapped: Any, trainer: Any, args: Any, kwargs: Any) -> Any:
        own = trainer._curitorch
        own.part.begin(trainer.args.process_index)
        own.wait()
        training.append(own)
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
            if session.ranks is not None:
                session.ranks.fail()
            own.save_held()
            raise
        finally:
            training.remove(own)
            own.close()
            own.part.ended(trainer.state.global_step, trainer.args.process_index)

    def finish_step(wrapped: Any, trainer: Any, args: Any, kwargs: Any) -> None:
        wrapped(*args, **kwargs)
        trainer._curitorch.hold()

    def make_loader(wrapped: Any, trainer: Any, args: Any, kwargs: Any) -> Any:
        loader = wrapped(*args, **kwargs)
        trainer._curitorch.loader = getattr(loader, "base_dataloader", loader)
        return loader

    def count_steps(wrapped: Any, trainer: Any, args: Any, kwargs: Any) -> Any:
        """Let a limit of steps, not of epochs, end what other processes have begun."""
        epochs, per_epoch, *others, steps = wrapped(*args, **kwargs)
        way_back = trainer._curitorch.way_back
        if way_back is not None and trainer.args.max_steps > 0:
            epochs = way_back.epochs_for(steps, per_epoch) or epochs
        return (epochs, per_epoch, *others, steps)

    def find_place(wrapped: Any, trainer: Any, args: Any, kwargs: Any) -> Any:
        """Return how many epochs and batches are done, as the processes of now count them."""
        found, own = wrapped(*args, **kwargs), trainer._curitorch
        per_epoch = kwargs.get("num_update_steps_per_epoch", args[1] if len(args) > 1 else None)
        if own.way_back is None or per_epoch is None:
            return found
        return own.way_back.divide_anew(own.loader, per_epoch) or found

    def skip(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        """Return the loader itself, which is led to where it stood as it is iterated over."""
        loader = getattr(args[0], "base_dataloader", None)
        way_back = training[-1].way_back if training else None
        if loader is None or way_back is None or not way_back.leads(loader):
            return wrapped(*args, **kwargs)
        return args[0]

    def load_generators(wrapped: Any, trainer: Any, args: Any, kwargs: Any) -> None:
        own = trainer._curitorch
        if own.way_back is None or not own.way_back.put_generators():
            wrapped(*args, **kwargs)
            return
        own.part.arrived()

    wrap_function_wrapper(Trainer, "__init__", made)
    wrap_function_wrapper(Trainer, "train", train)
    wrap_function_wrapper(Trainer, "get_train_dataloader", make_loader)
    wrap_function_wrapper(Trainer, "set_initial_training_values", count_steps)
    wrap_function_wrapper(Trainer, "_init_training_state", find_place)
    wrap_function_wrapper(Trainer, "_maybe_log_save_evaluate", finish_step)
    wrap_function_wrapper(Trainer, "_load_rng_state", load_generators)
    wrap_function_wrapper(transformers.trainer, "skip_first_batches", skip)
