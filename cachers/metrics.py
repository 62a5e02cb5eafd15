"""Caching metrics: what a training run logged, as a table in a CSV file."""

from typing import TYPE_CHECKING

from ..external.atomic import whole_file
from ..external.rundir import TrainingRun
from .whole import WholeCacher

if TYPE_CHECKING:
    import pandas as pd


class MetricsCacher(WholeCacher):
    """Caches a pandas DataFrame of metrics; numbers come back exactly, the index does not.

    Args:
        path_override: The table's path instead of the one that curifactory makes up.
        kwargs: Further options of curifactory's `Cacheable`.
    """

    file_extension = ".csv"

    def load(self) -> "pd.DataFrame":
        """Return the table with its rows numbered from 0."""
        import pandas as pd

        self.load_metadata()
        # From 3.1 on pandas reads floats back exactly and warns of being told so.
        exact = tuple(int(part) for part in pd.__version__.split(".")[:2]) >= (3, 1)
        return pd.read_csv(self.path, float_precision=None if exact else "round_trip")

    def save(self, obj: "TrainingRun | pd.DataFrame") -> str:
        """Keep a table, or what a run logged (see `TrainingRun.metrics`).

        Raises:
            TypeError: `obj` is neither a run nor a DataFrame.
        """
        import pandas as pd

        frame = obj.metrics() if isinstance(obj, TrainingRun) else obj
        if not isinstance(frame, pd.DataFrame):
            raise TypeError(
                f"MetricsCacher got {obj!r:.80}, expected a TrainingRun or a pandas DataFrame."
            )
        with whole_file(self.path) as temporary:
            frame.to_csv(temporary, index=False)
        self.record_sizes()
        self.save_metadata()
        return str(self.path)
