"""Trains any LightningModule, in one process or many.

\b
    python -m curitorch.external.trainer --model my_project.models:Net \\
        --data my_project.data:Digits --dataset_path digits.npz --epochs 3 --run_dir runs/first
\b
In four processes, which share the batch:
    python -m torch.distributed.run --nproc-per-node 4 -m -- curitorch.external.trainer …
\b
The same command after an interruption goes on from the newest whole checkpoint. The model is
RUN_DIR/model.ckpt; load it with curitorch.cachers.load_model("RUN_DIR/model.ckpt").
"""

import inspect
from collections.abc import Mapping
from typing import Any

import click

from ..params.commandline import from_options, options_for
from ..params.launch import ACCELERATORS
from ..params.trainer import TrainerParams
from .data import call_with, make_data
from .import_object import ObjectNotFound, import_object
from .job import TrainerJob
from .options import Refusal, job_from_options, job_options, refusals
from .refused import Refused


def program(text: str, *, engine: str = "lightning") -> click.Command:
    """Return the trainer's command.

    Args:
        text: Its help.
        engine: What trains, unless `--engine` says otherwise.
    """

    @click.command(
        help=text,
        context_settings={"max_content_width": 100, "default_map": {"engine": engine}},
    )
    @options_for(TrainerParams)
    @job_options
    @click.option(
        "--accelerator",
        default="auto",
        show_default=True,
        type=click.Choice(ACCELERATORS),
        help="Train on GPUs, on the CPU, or on GPUs where there are any.",
    )
    @click.option(
        "--strategy",
        default="auto",
        show_default=True,
        help="Lightning's strategy, such as ddp or fsdp; auto: ddp for several processes.",
    )
    def main(**options: Any) -> None:
        from torch.distributed.elastic.multiprocessing.errors import record

        with refusals():
            try:
                params = from_options(TrainerParams, options)
                params.check_complete()
            except ValueError as error:
                raise Refusal(str(error)) from error
            check_accelerator(options["accelerator"])
            model_class = import_model_class(params.model)
            data_function = import_object(params.data, option="--data") if params.data else None
            if params.engine == "lean":
                check_classes(model_class, data_function, params, strategy=options["strategy"])
            with job_from_options(options) as job:
                if job is not None:
                    record(_train)(job, params, model_class, data_function, options)

    return main


def import_model_class(name: str) -> Any:
    """Import a LightningModule class.

    Raises:
        ObjectNotFound: There is no such object, or it is no class of lightning.pytorch.
    """
    from lightning.pytorch import LightningModule

    found = import_object(name, option="--model")
    if isinstance(found, type) and issubclass(found, LightningModule):
        return found
    what = f"a {type(found).__name__}, not a class"
    if isinstance(found, type):
        what = "a class, but no LightningModule"
        if any(base.__module__.split(".")[0] == "pytorch_lightning" for base in found.__mro__):
            what = (
                "a LightningModule of 'pytorch_lightning', which does not mix with "
                "'lightning.pytorch': import lightning.pytorch in its module instead; it is"
            )
    raise ObjectNotFound(
        f"--model {name!r} is {what}. Expected a subclass of lightning.pytorch.LightningModule."
    )


def check_accelerator(accelerator: str) -> None:
    """Refuse GPUs that are not there.

    Raises:
        Refused: `accelerator` is "gpu" and torch finds none.
    """
    import torch

    if accelerator == "gpu" and not torch.cuda.is_available():
        raise Refused(
            "--accelerator gpu, but torch finds no GPU on this machine. "
            "Use --accelerator auto or cpu, or install a torch with CUDA and a driver."
        )


def check_classes(
    model_class: Any, data_function: Any, params: TrainerParams, *, strategy: str
) -> None:
    """Refuse for the lean loop what the classes of a project define, before one is made.

    Raises:
        UnsupportedProject: It cannot be honoured.
    """
    from lightning.pytorch import LightningDataModule

    from .adapter.refusals import check_classes

    has_class = isinstance(data_function, type) and issubclass(data_function, LightningDataModule)
    check_classes(
        model_class,
        data_function if has_class else None,
        make=lambda: call_with(model_class, "--model_args", params.model_args),
        settings={
            "exact": params.trainer_args.get("exact", "rank"),
            "accumulate": params.accumulate,
            "clips": bool(params.gradient_clip),
            "strategy": strategy,
        },
    )


def _train(
    job: TrainerJob,
    params: TrainerParams,
    model_class: Any,
    data_function: Any,
    options: Mapping[str, Any],
) -> None:
    from lightning.pytorch import seed_everything

    seed_everything(params.seed, workers=True, verbose=False)
    data: Any = None
    if data_function is not None:
        data = make_data(data_function, params, dataset_path=job.dataset_path, ranks=job.ranks)
    model = call_with(model_class, "--model_args", params.model_args)
    make = job.lean_trainer if params.engine == "lean" else job.trainer
    trainer = make(
        arguments=params.model_args,
        max_epochs=params.epochs if params.epochs is not None else -1,
        max_steps=params.steps if params.steps is not None else -1,
        accumulate_grad_batches=params.accumulate,
        gradient_clip_val=params.gradient_clip,
        precision=params.precision,
        accelerator=options["accelerator"],
        strategy=options["strategy"],
        **_trainer_args(params),
    )
    job.fit(trainer, model, data, batch_size=params.batch_size, seed=params.seed)


def _trainer_args(params: TrainerParams) -> dict[str, Any]:
    """Return the further options of the engine's trainer, refusing unknown ones."""
    made: Any
    if params.engine == "lean":
        from .adapter import LeanTrainer as made  # noqa: N813 - one of two
    else:
        from lightning.pytorch import Trainer as made  # noqa: N813
    known = inspect.signature(made).parameters
    given = dict(params.trainer_args)
    if params.engine == "lean":
        given.pop("enable_model_summary", None)  # it shows none, whatever this says
    for name in given:
        if name not in known:
            raise Refused(
                f"--trainer_args has {name!r}, which {made.__module__.split('.')[0]}."
                f"{made.__name__} does not know. It knows: {', '.join(known)}."
            )
    return given


main = program(__doc__)

if __name__ == "__main__":
    main()
