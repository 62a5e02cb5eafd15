"""As quick, on curitorch's lean loop instead of Lightning's Trainer."""

from dataclasses import replace

from params.quick import get_params as get_quick_params


def get_params():
    """Return the one parameter set of `-p lean`."""
    [quick] = get_quick_params()
    return [replace(quick, name="lean", trainer=replace(quick.trainer, engine="lean"))]
