"""What models say about samples, as a table and, where the samples are images, as a picture."""

import base64
import html
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..viewing.run_html import number, table
from .notice import say
from .samples import Samples, described

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

ROWS = 16
_IMAGE_SIDES = range(4, 2049)


@dataclass(frozen=True)
class Predictions:
    """The samples and, by the name of its model, what each said: `outputs["quick"]`, a tensor."""

    samples: Samples
    outputs: dict[str, Any]

    def _repr_html_(self) -> str:
        return _picture(self) + _table(self)

    def __repr__(self) -> str:
        said = ", ".join(f"{name} {described(each)}" for name, each in self.outputs.items())
        return f"Predictions on {self.samples.count} samples: {said}"


def predict(
    models: "Mapping[str, LightningModule]",
    samples: Samples | None,
    how: "Callable[[LightningModule, Any], Any] | None" = None,
) -> Predictions | None:
    """Return what each model says about the samples; a sentence for each that cannot.

    A model with a `predict_step` is asked by it, others are called with the inputs. Gradients are
    off, and the model is in evaluation mode meanwhile.

    Args:
        models: The models by name.
        samples: What they are asked about; with None there is nothing to do, which is said.
        how: Called with a model and the batch, where the model is asked in another way.
    """
    if samples is None or not models:
        say(f"No predictions: there are no {'models' if not models else 'samples'}, see above.")
        return None
    outputs = {}
    for name, model in models.items():
        try:
            outputs[name] = _ask(model, samples, how)
        except Exception as error:  # the user's own code, which may raise anything
            say(
                f"{name}: no predictions. {type(model).__name__} raised {type(error).__name__}: "
                f"{error}. It was given {described(samples.batch)}; say how it is to be asked: "
                "explore.predict(models, samples, how=lambda model, batch: …)."
            )
    return Predictions(samples, outputs) if outputs else None


def _ask(
    model: "LightningModule",
    samples: Samples,
    how: "Callable[[LightningModule, Any], Any] | None",
) -> Any:
    import torch
    from lightning.fabric.utilities import move_data_to_device
    from lightning.pytorch import LightningModule

    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            batch = move_data_to_device(samples.batch, model.device)
            if how is not None:
                output = how(model, batch)
            elif type(model).predict_step is not LightningModule.predict_step:
                output = model.predict_step(batch, 0)
            else:
                inputs = move_data_to_device(samples.inputs, model.device)
                output = model(**inputs) if isinstance(inputs, Mapping) else model(inputs)
    finally:
        model.train(was_training)
    return move_data_to_device(_scores(output), "cpu")


def _scores(output: Any) -> Any:
    """Return the tensor that counts in an output: its logits, or the first of several."""
    if isinstance(output, Mapping):
        return output["logits"] if "logits" in output else next(iter(output.values()))
    if hasattr(output, "logits"):
        return output.logits
    return output[0] if isinstance(output, list | tuple) else output


def _is_classes(output: Any, targets: Any) -> bool:
    """Return whether an output is scores of classes: (samples, classes), with whole targets."""
    is_scores = getattr(output, "ndim", 0) == 2 and output.shape[1] > 1
    if not is_scores or not output.is_floating_point():
        return False
    whole = targets is not None and hasattr(targets, "ndim") and targets.ndim == 1
    return targets is None or (whole and not targets.is_floating_point())


def _said(output: Any, targets: Any, count: int) -> list[str]:
    """Return one text per sample."""
    if _is_classes(output, targets):
        share, chosen = output.softmax(1).max(1)
        return [
            f"{c} ({100 * s:.0f} %)" for c, s in zip(chosen.tolist(), share.tolist(), strict=True)
        ]
    if hasattr(output, "ndim") and output.ndim and output.shape[0] == count:
        return [_value(entry) for entry in output]
    return [described(output)] * count


def _value(entry: Any) -> str:
    if not hasattr(entry, "numel"):
        return str(entry)[:80]
    if entry.numel() > 4:
        return described(entry)
    return ", ".join(number(value) for value in entry.flatten().tolist())


def _right(output: Any, targets: Any) -> Any:
    """Return which samples were classified rightly; None if that is no question."""
    if targets is None or not _is_classes(output, targets):
        return None
    return (output.argmax(1) == targets).tolist()


def _table(predictions: Predictions) -> str:
    samples, targets = predictions.samples, predictions.samples.targets
    count = samples.count
    columns = [_said(output, targets, count) for output in predictions.outputs.values()]
    wanted = [_value(entry) for entry in targets] if _is_by_sample(targets, count) else [""] * count
    rows = [
        [str(i), wanted[i], *(column[i] for column in columns)] for i in range(min(ROWS, count))
    ]
    sums = []
    for name, output in predictions.outputs.items():
        right = _right(output, targets)
        if right is not None:
            sums.append(f"{name}: {sum(right)} of {len(right)} right")
        elif getattr(targets, "shape", None) == getattr(output, "shape", ()) and count:
            error = (output - targets).abs().double().mean().item()
            sums.append(f"{name}: mean absolute error {number(error)}")
    line = f"<p>{html.escape('; '.join(sums))}</p>" if sums else ""
    more = f"<p>… and {count - ROWS} more</p>" if count > ROWS else ""
    return line + table(["sample", "target", *predictions.outputs], rows) + more


def _is_by_sample(targets: Any, count: int) -> bool:
    return bool(getattr(targets, "ndim", 0)) and targets.shape[0] == count


def _picture(predictions: Predictions) -> str:
    """Return the samples as a grid of images, by the first model; nothing if they are none."""
    images = predictions.samples.inputs
    if not hasattr(images, "ndim") or images.ndim not in (3, 4):
        return ""
    if images.ndim == 4 and images.shape[1] not in (1, 3):
        return ""
    if any(side not in _IMAGE_SIDES for side in images.shape[-2:]):
        return ""
    from matplotlib.figure import Figure

    targets = predictions.samples.targets
    name, output = next(iter(predictions.outputs.items()))
    said, right = _said(output, targets, predictions.samples.count), _right(output, targets)
    shown = min(ROWS, predictions.samples.count)
    columns = min(8, shown)
    rows = -(-shown // columns)
    figure = Figure(figsize=(1.2 * columns, 1.45 * rows), layout="constrained")
    for i in range(shown):
        axes = figure.add_subplot(rows, columns, i + 1)
        pixels = images[i].float()
        pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min()).clamp(min=1e-12)
        if pixels.ndim == 3:
            pixels = pixels.movedim(0, -1)  # (height, width, channels)
        axes.imshow(pixels.squeeze(-1).numpy() if pixels.ndim == 3 else pixels.numpy(), cmap="gray")
        wrong = right is not None and not right[i]
        axes.set_title(said[i][:16], fontsize=8, color="#c62828" if wrong else "black")
        axes.axis("off")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(name)}: samples" src="data:image/png;base64,{data}">'
