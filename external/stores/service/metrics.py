"""Counters of the service in Prometheus' text format, version 0.0.4."""

import time
from collections import Counter

_COUNTERS = {
    "requests_total": "Requests answered, by method and status.",
    "received_bytes_total": "Bytes of files received.",
    "sent_bytes_total": "Bytes of files sent.",
    "commits_total": "Checkpoints that came to be.",
    "deletions_total": "Checkpoints deleted, by clients and by retention.",
    "refusals_total": "Requests refused, by kind.",
    "turned_away_total": "Connections closed because there were too many.",
}
_GAUGES = {
    "connections": "Open connections.",
    "uploads": "Uploads begun and not yet committed.",
    "stored_bytes": "Bytes of the checkpoints of all jobs.",
    "checkpoints": "Checkpoints of all jobs.",
    "free_bytes": "Bytes free on the disk of the root.",
    "up_seconds": "Seconds since the start.",
}
PREFIX = "curitorch_store_"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counts; for the service's own thread."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self._counts: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()

    def add(self, name: str, amount: int = 1, **labels: str) -> None:
        """Count `amount` more; `labels` have values from a small fixed set."""
        self._counts[name, tuple(sorted(labels.items()))] += amount

    def text(self, gauges: dict[str, float]) -> str:
        """Return the page, with the present values of `gauges`."""
        lines = []
        for name, says in _COUNTERS.items():
            lines += [f"# HELP {PREFIX}{name} {says}", f"# TYPE {PREFIX}{name} counter"]
            counted = {key[1]: n for key, n in self._counts.items() if key[0] == name}
            for labels, count in sorted((counted or {(): 0}).items()):
                inside = ",".join(f'{label}="{value}"' for label, value in labels)
                lines.append(f"{PREFIX}{name}{f'{{{inside}}}' if inside else ''} {count}")
        gauges = {**gauges, "up_seconds": round(time.monotonic() - self.started, 3)}
        for name, says in _GAUGES.items():
            lines += [f"# HELP {PREFIX}{name} {says}", f"# TYPE {PREFIX}{name} gauge"]
            lines.append(f"{PREFIX}{name} {gauges.get(name, 0)}")
        return "\n".join(lines) + "\n"
