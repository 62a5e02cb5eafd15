"""The curves of runs in a notebook: a picture, with controls above it where ipywidgets is there."""

import importlib.util
from collections.abc import Container, Mapping
from typing import Any

from ..rundir import TrainingRun
from ..schema import UnreadableFile
from ..viewing.metric_figure import Values, families, family_of, metric_figure
from .notice import in_notebook, say

AXES = ("step", "epoch", "time")
Y_AXES = {"auto": None, "linear": False, "log": True}


def curves(runs: Mapping[str, TrainingRun], *, widgets: bool | None = None) -> None:
    """Show what the runs logged, by step, epoch or time; several runs are overlaid.

    The picture is an ordinary image, also in a notebook that is only looked at. With ipywidgets
    there are controls above it: which runs and metrics, both axes, smoothing.

    Args:
        runs: The runs by name.
        widgets: Whether to show the controls; None shows them where they can be.
    """
    logged = {name: values for name, run in runs.items() if (values := _logged(name, run))}
    if not any(logged.values()):
        say("There are no curves: nothing was logged, or no run is there.")
        return
    if widgets is None:
        widgets = in_notebook() and importlib.util.find_spec("ipywidgets") is not None
    if widgets:
        _with_controls(logged)
    else:
        _show(_picture(logged))


def _logged(name: str, run: TrainingRun) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Return for each metric of a run its points by each of `AXES`."""
    points: dict[str, dict[str, list[tuple[float, float]]]] = {}
    began: float | None = None
    try:
        events = run.events()
    except (UnreadableFile, OSError) as error:
        say(f"{name}: no curves. {error}")
        return {}
    for event in events:
        began = float(event["time"]) if began is None else began
        if event["event"] != "metric":
            continue
        places = {
            "step": event["step"],
            "epoch": event.get("epoch"),
            "time": float(event["time"]) - began,
        }
        for metric, value in event["metrics"].items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            by_axis = points.setdefault(metric, {axis: [] for axis in AXES})
            for axis, place in places.items():
                if place is not None:
                    by_axis[axis].append((float(place), float(value)))
    return points


def _picture(
    logged: Mapping[str, Mapping[str, Mapping[str, list[tuple[float, float]]]]],
    *,
    names: Container[str] | None = None,
    chosen: Container[str] | None = None,
    axis: str = "step",
    y_axis: str = "auto",
    smoothing: float | None = None,
) -> bytes:
    shown: dict[str, Values] = {
        name: {
            metric: dict(by_axis[axis])
            for metric, by_axis in metrics.items()
            if chosen is None or family_of(metric) in chosen
        }
        if names is None or name in names
        else {}  # the others keep their colours
        for name, metrics in logged.items()
    }
    label = "seconds" if axis == "time" else axis
    return metric_figure(shown, x_label=label, log=Y_AXES[y_axis], smoothing=smoothing)


def _show(picture: bytes) -> Any:
    from IPython.display import Image, display

    return display(Image(picture), display_id=True)  # type: ignore[no-untyped-call]


def _with_controls(logged: Mapping[str, Any]) -> None:
    import ipywidgets
    from IPython.display import Image, display

    found = list(families(metric for metrics in logged.values() for metric in metrics))
    controls = {
        "names": ipywidgets.SelectMultiple(
            options=list(logged), value=list(logged), description="runs", rows=min(5, len(logged))
        ),
        "chosen": ipywidgets.SelectMultiple(
            options=found, value=found, description="metrics", rows=min(5, len(found))
        ),
        "axis": ipywidgets.Dropdown(options=AXES, description="x axis"),
        "y_axis": ipywidgets.Dropdown(options=list(Y_AXES), description="y axis"),
        "smoothing": ipywidgets.FloatSlider(
            min=0, max=0.99, step=0.01, description="smoothing", continuous_update=False
        ),
    }
    display(ipywidgets.HBox(list(controls.values()), layout={"flex_flow": "row wrap"}))  # type: ignore[no-untyped-call]
    handle = _show(_picture(logged))

    def redraw(change: object) -> None:
        values = {name: control.value for name, control in controls.items()}
        picture = _picture(logged, **{**values, "smoothing": values["smoothing"] or None})
        if picture:  # nothing is chosen: what was shown stays
            handle.update(Image(picture))  # type: ignore[no-untyped-call]

    for control in controls.values():
        control.observe(redraw, names="value")
