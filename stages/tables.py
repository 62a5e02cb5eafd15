"""Tables of a report as HTML, which looks the same wherever it is shown; nothing is loaded.

Cells are escaped unless they are `Html`. What leaves here for a page is ASCII: curifactory's pages
do not say their encoding.
"""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


class Html(str):
    """Text that is HTML already."""


STYLE = """<style>
.curitorch { font: 14px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  color: #1f2937; max-width: 1180px; padding: 4px 8px 14px; }
.curitorch h4 { margin: 22px 0 8px; font-size: 15px; color: #111827; }
.curitorch p { margin: 4px 0; }
.curitorch .facts { color: #4b5563; }
.curitorch .facts b { color: #111827; font-weight: 600; }
.curitorch .state { border-radius: 9px; padding: 1px 9px; font-size: 12px; font-weight: 600;
  background: #e5e7eb; color: #374151; }
.curitorch .complete { background: #d1fae5; color: #065f46; }
.curitorch .failed { background: #fee2e2; color: #991b1b; }
.curitorch .curves { display: flex; flex-wrap: wrap; gap: 14px; margin-top: 12px; }
.curitorch .curves img { width: 560px; max-width: 100%; border: 1px solid #e5e7eb;
  border-radius: 8px; }
.curitorch table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.curitorch th { text-align: left; font-weight: 600; font-size: 12px; color: #6b7280;
  border-bottom: 1.5px solid #d1d5db; padding: 4px 14px 4px 4px; vertical-align: bottom; }
.curitorch td { border-bottom: 1px solid #f0f1f3; padding: 3px 14px 3px 4px; white-space: nowrap; }
.curitorch td.number { text-align: right; }
.curitorch th.number { text-align: right; }
.curitorch td.best { background: #ecfdf5; color: #065f46; font-weight: 600; }
.curitorch tr.gone td { color: #9ca3af; }
.curitorch .swatch { display: inline-block; width: 11px; height: 11px; border-radius: 3px;
  margin-right: 7px; vertical-align: -1px; }
.curitorch details { margin: 10px 0; }
.curitorch summary { cursor: pointer; color: #374151; }
.curitorch pre { background: #f9fafb; border: 1px solid #e5e7eb; border-radius: 6px; padding: 8px;
  overflow-x: auto; white-space: pre-wrap; font-size: 12px; }
.curitorch code { font-size: 12px; overflow-wrap: anywhere; }
.curitorch .scroll { overflow-x: auto; }
</style>"""


def table(
    rows: Iterable[Mapping[str, Any]],
    *,
    row_classes: Sequence[str] = (),
    best: Mapping[str, int] | None = None,
) -> str:
    """Return the rows as a table; columns that are None in all of them are left out.

    Args:
        rows: What is in each column.
        row_classes: A class of STYLE for each row.
        best: The row in which a column's best value stands.
    """
    listed = list(rows)
    names = dict.fromkeys(name for row in listed for name in row)
    columns = [name for name in names if any(row.get(name) is not None for row in listed)]
    numbers = {name for name in columns if all(_is_number(row.get(name)) for row in listed)}
    head = "".join(f"<th{_kind(name in numbers)}>{escape(name)}</th>" for name in columns)
    lines = []
    for at, row in enumerate(listed):
        cells = "".join(
            f"<td{_kind(name in numbers, (best or {}).get(name) == at)}>{cell(row.get(name))}</td>"
            for name in columns
        )
        kind = row_classes[at] if at < len(row_classes) else ""
        lines.append(f'<tr class="{kind}">{cells}</tr>' if kind else f"<tr>{cells}</tr>")
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(lines)}</table></div>'


def cell(value: object) -> str:
    """Return a value as it is shown: numbers with five digits, nothing for None."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, Html):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    if isinstance(value, float):
        return f"{value:.5g}"
    return escape(str(value))


def escape(text: str) -> str:
    """Return text as HTML."""
    return html.escape(text)


def ascii_only(parts: Iterable[str]) -> list[str]:
    """Return HTML in which every other character is written as its number."""
    return [part.encode("ascii", "xmlcharrefreplace").decode() for part in parts]


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _kind(is_number: bool, is_best: bool = False) -> str:
    classes = ["number"] * is_number + ["best"] * is_best
    return f' class="{" ".join(classes)}"' if classes else ""
