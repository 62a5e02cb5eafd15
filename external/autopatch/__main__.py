"""Run a script, saved and continued.

    python -m curitorch.external.autopatch train.py --lr 0.1

Also `-m package.module …`. What is saved and where, the `LATTICE_*` variables say: see `settings`.
"""

import logging
import sys

from .findings import LOG
from .script import Script
from .session import Session
from .settings import BadVariable, read_settings
from .tracker import Tracker

USAGE = "Usage: python -m curitorch.external.autopatch SCRIPT.py … or -m MODULE …"


def main(words: list[str]) -> None:
    """Run the program of `words`.

    Raises:
        SystemExit: With status 2 if the variables are wrong, else as the program's.
    """
    words = words[1:] if words[:1] == ["--"] else words
    if not words or words[0] in ("-h", "--help") or words == ["-m"]:
        sys.exit(f"{__doc__}\n{USAGE}" if words[:1] in (["-h"], ["--help"]) else USAGE)
    tracker = Tracker()
    script: Script
    session: Session
    try:
        settings = read_settings()
        _say(settings.level)
        script = Script(
            words, tracker, lambda source: session.check_source(source.key, source.checksum)
        )
        session = Session(settings, tracker, script.name)
        if not session.open():
            return
        session.load()
    except BadVariable as error:
        _refuse(error)
    from .torch_patch import when_imported

    when_imported(tracker, session)
    session.emptied.listen()
    try:
        script.run()
    except BadVariable as error:
        _refuse(error)
    except SystemExit as error:
        if error.code in (None, 0):
            session.complete()
        else:
            session.fail()
        raise
    except BaseException:
        session.fail()
        raise
    session.complete()


def _say(level: int) -> None:
    """Let this package's log go to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("curitorch: %(message)s"))
    LOG.addHandler(handler)
    LOG.setLevel(level)
    LOG.propagate = False


def _refuse(error: Exception) -> None:
    print(f"curitorch: {error}", file=sys.stderr)  # noqa: T201
    raise SystemExit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
