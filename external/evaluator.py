"""Evaluates a trained model on a dataset, in a process of its own, and writes its metrics as JSON.

\b
    python -m curitorch.external.evaluator --model_path runs/first/model.ckpt \\
        --data my_project.data:Digits --dataset_path digits.npz --metrics_path metrics.json
"""

from pathlib import Path
from typing import Any

import click

from ..params.commandline import from_options, options_for
from ..params.trainer import TrainerParams
from .atomic import write_json
from .data import make_data
from .environment import Ranks
from .import_object import import_object
from .options import Refusal, refusals
from .refused import Refused

_FILE = click.Path(path_type=Path)


@click.command(help=__doc__, context_settings={"max_content_width": 100})
@click.option("--model_path", "--model-path", required=True, type=_FILE, help="The trained model.")
@click.option("--dataset_path", "--dataset-path", type=_FILE, help="The dataset.")
@click.option(
    "--metrics_path", "--metrics-path", type=_FILE, help="Where the metrics go; else printed."
)
@click.option(
    "--on",
    type=click.Choice(["test", "val"]),
    default="test",
    show_default=True,
    help="Which loader and which of the model's steps.",
)
@click.option("--trusted", is_flag=True, help="Open a model file that runs code when opened.")
@options_for(TrainerParams)
def main(
    model_path: Path,
    dataset_path: Path | None,
    metrics_path: Path | None,
    on: str,
    trusted: bool,
    **options: Any,
) -> None:
    """Evaluate what the options say; see the module's docstring."""
    from .model import load_model

    with refusals():
        params = from_options(TrainerParams, options)
        if not params.data:
            raise Refusal("--data is not given, so there is nothing to evaluate on.")
        function = import_object(params.data, option="--data")
        data = make_data(function, params, dataset_path=dataset_path, ranks=Ranks())
        model = load_model(model_path, trusted=trusted)
        metrics = _evaluate(model, data, on)
    if metrics_path is not None:
        write_json(metrics_path, metrics)
    else:
        for name, value in metrics.items():
            click.echo(f"{name} {value:.6g}")


def _evaluate(model: Any, data: Any, on: str) -> dict[str, float]:
    from lightning.pytorch import LightningDataModule, Trainer

    loader = f"{on}_dataloader"
    own = getattr(data, loader)
    if getattr(own, "__func__", None) is getattr(LightningDataModule, loader):
        raise Refused(f"The data has no {loader}. Define it, or choose the other one with --on.")
    trainer = Trainer(
        accelerator="auto",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    run = trainer.test if on == "test" else trainer.validate
    results = run(model, datamodule=data, verbose=False)
    return {name: float(value) for result in results for name, value in result.items()}


if __name__ == "__main__":
    main()
