"""The table of support as Markdown, in documents between two marks.

python -m curitorch.external.adapter.support_matrix README.md docs/adapter.md
"""

import sys
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path

from ..atomic import whole_file
from .hooks import REMOVED_FOR_DATA, SUPPORT, Support

BEGIN, END = "<!-- {name}: generated from external/adapter/hooks.py -->", "<!-- end -->"
_OWNERS = {"module": "module", "datamodule": "data module", "both": "both"}
_VERDICTS = {"supported": "supported", "warned": "left out, said once", "refused": "refused"}
_LISTED_AT_MOST = 40
_SHOWN = 6


def full() -> str:
    """Return a row for each group of names with the same support."""
    rows = ["| names | of a | | what the lean loop does |", "|---|---|---|---|"]
    everything = [*SUPPORT.items(), *REMOVED_FOR_DATA.items()]
    for support, group in groupby(everything, key=lambda item: item[1]):
        names = [name for name, _ in group]
        verdict = _VERDICTS[support.verdict]
        if support.fixed:
            verdict = "supported, not to be overridden"
        said = support.reason + (f"; {support.remedy}" if support.remedy else "")
        rows.append(f"| {_listed(names)} | {_OWNERS[support.owner]} | {verdict} | {said} |")
    return "\n".join(rows)


def short() -> str:
    """Return how many names are supported, and which ones are not."""
    rows = ["| | of LightningModule | of LightningDataModule |", "|---|---|---|"]
    data: Mapping[str, Support] = {**SUPPORT, **REMOVED_FOR_DATA}
    for verdict, title in _VERDICTS.items():
        cells = [
            _counted(_names(table, owner, verdict), listed=verdict != "supported")
            for table, owner in ((SUPPORT, "module"), (data, "datamodule"))
        ]
        rows.append(f"| {title} | {cells[0]} | {cells[1]} |")
    return "\n".join(rows)


def filled(text: str) -> str:
    """Return a document with what is between its marks made anew."""
    for name, make in {"support": full, "support in short": short}.items():
        begin = BEGIN.format(name=name)
        before, found, rest = text.partition(begin)
        if found:
            _, _, after = rest.partition(END)
            text = f"{before}{begin}\n{make()}\n{END}{after}"
    return text


def _names(table: Mapping[str, Support], owner: str, verdict: str) -> list[str]:
    return [n for n, s in table.items() if s.owner in (owner, "both") and s.verdict == verdict]


def _counted(names: list[str], *, listed: bool) -> str:
    if not listed:
        return f"{len(names)} names"
    more = ", …" if len(names) > _SHOWN else ""
    return f"{len(names)} names: {_listed(names[:_SHOWN])}{more}"


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    if len(names) > _LISTED_AT_MOST:
        return f"`{names[0]}` … `{names[-1]}` ({len(names)} names)"
    return ", ".join(f"`{name}`" for name in names)


def main() -> None:
    """Fill the documents that the command line names."""
    for path in map(Path, sys.argv[1:]):
        text = filled(path.read_text())
        with whole_file(path) as temporary:
            temporary.write_text(text)


if __name__ == "__main__":
    main()
