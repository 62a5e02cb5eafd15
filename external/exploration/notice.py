"""What a notebook's cell could not do, as a sentence below it instead of a traceback."""

import html
import sys


def say(sentence: str) -> None:
    """Show a sentence in the running notebook; print it anywhere else."""
    if in_notebook():
        from IPython.display import display

        markup = (
            '<div style="border-left:4px solid #b26a00;padding:4px 10px">'
            f"{html.escape(sentence)}</div>"
        )
        display({"text/plain": sentence, "text/html": markup}, raw=True)  # type: ignore[no-untyped-call]
    else:
        print(sentence)  # noqa: T201


def in_notebook() -> bool:
    """Return whether this is a notebook's kernel, not a script or IPython in a terminal."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
