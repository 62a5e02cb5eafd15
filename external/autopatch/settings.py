"""What the `LATTICE_*` variables say, checked before anything is trained.

| variable | meaning |
|---|---|
| `LATTICE_AUTOPATCH` | `torch`, `transformers`, `lightning`, comma-separated |
| `LATTICE_CHECKPOINT_TYPE` | `local`, `remote`, `s3`, or any kind that `open_store` takes |
| `LATTICE_CHECKPOINT_CONFIG` | `key=value,key=value`: the settings below and the store's own |
| `LATTICE_LOGLEVEL` | what is said on standard error; `WARNING` without it |
| `LATTICE_STRICT` | `1`: what could not go on exactly stops the script |
| `LATTICE_AGAIN` | `1`: a script that is complete is trained again, from its beginning |
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..stores.kinds import open_store
from ..stores.settings import BadSettings, parse_settings
from ..stores.store import Store, StoreError

AUTOPATCH = "LATTICE_AUTOPATCH"
TYPE = "LATTICE_CHECKPOINT_TYPE"
CONFIG = "LATTICE_CHECKPOINT_CONFIG"
LOGLEVEL = "LATTICE_LOGLEVEL"
STRICT = "LATTICE_STRICT"
AGAIN = "LATTICE_AGAIN"

FRAMEWORKS = ("torch", "transformers", "lightning")
_SWITCH = {"enabled": True, "disabled": False}
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class BadVariable(ValueError):
    """A variable cannot be understood, or its store cannot be used; the message says what to do."""


@dataclass(frozen=True)
class AutopatchSettings:
    """How a script is saved; `every_seconds` and `every_steps` are None when not wanted."""

    frameworks: tuple[str, ...] = ("torch",)
    kind: str = "local"
    store: Mapping[str, str] = field(default_factory=dict)
    at_exit: bool = True
    every_seconds: float | None = None
    every_steps: int | None = None
    level: int = logging.WARNING
    strict: bool = False
    again: bool = False
    grace_seconds: float = 25.0

    def for_rank(self, rank: int) -> "AutopatchSettings":
        """Return the settings whose store is that of one of several ranks."""
        return self.for_part(f"rank-{rank}")

    def for_part(self, name: str) -> "AutopatchSettings":
        """Return the settings whose store is a part of this one."""
        store = dict(self.store)
        if "job_id" in store:
            store["job_id"] = f"{store['job_id']}-{name}"
        elif "root" in store:
            store["root"] = f"{store['root'].rstrip('/')}/{name}" + (
                "/" if "://" in store["root"] else ""
            )
        return replace(self, store=store)

    def may_exist(self) -> bool:
        """Return whether the store may hold something; a local folder is not made to find out."""
        return self.kind != "local" or Path(self.store.get("root", "")).exists()

    def open(self) -> Store:
        """Open the store and see that it answers.

        Raises:
            BadVariable: It cannot be opened.
        """
        try:
            opened = open_store(self.kind, self.store)
        except (BadSettings, ModuleNotFoundError) as error:
            raise BadVariable(f"{CONFIG}: {error}") from error
        except (OSError, StoreError, ValueError) as error:
            raise BadVariable(
                f"{CONFIG} names a {self.kind} store that cannot be used ({error}). Make it "
                "reachable and writable, or name another."
            ) from error
        try:
            opened.list()
            with opened.drafting() as folder:
                (folder / "probe").write_bytes(b"")
        except (OSError, StoreError, ValueError) as error:
            opened.close()
            raise BadVariable(
                f"{CONFIG} names a {self.kind} store that cannot be used ({error}). Make it "
                "reachable and writable, or name another."
            ) from error
        return opened


def read_settings(environ: Mapping[str, str] = os.environ) -> AutopatchSettings:
    """Return what the variables say.

    Raises:
        BadVariable: One has a wrong value, or is missing.
    """
    frameworks = tuple(w.strip().lower() for w in environ.get(AUTOPATCH, "torch").split(","))
    for word in frameworks:
        if word not in FRAMEWORKS:
            raise BadVariable(
                f"{AUTOPATCH} has {word!r}, expected some of {', '.join(FRAMEWORKS)}, separated "
                f"by commas. Write {AUTOPATCH}=torch."
            )
    kind = environ.get(TYPE, "").strip()
    if not kind:
        raise BadVariable(
            f"{TYPE} is not set. Write {TYPE}=local and {CONFIG}=root=FOLDER, or unset {AUTOPATCH}."
        )
    try:
        given = parse_settings(environ.get(CONFIG, ""), what=CONFIG)
    except BadSettings as error:
        raise BadVariable(str(error)) from error
    at_exit = _switch(given.pop("atexit_saving", "enabled"), "atexit_saving")
    periodic = _switch(given.pop("periodic_saving", "disabled"), "periodic_saving")
    interval = given.pop("periodic_saving_interval", None)
    if periodic and interval is None:
        raise BadVariable(
            f"{CONFIG} has periodic_saving=enabled, but no periodic_saving_interval. Write "
            "periodic_saving_interval=300 for seconds, or 500steps."
        )
    seconds, steps = _interval(interval) if periodic and interval else (None, None)
    grace = _seconds(given.pop("grace_seconds", str(AutopatchSettings.grace_seconds)))
    return AutopatchSettings(
        frameworks=frameworks,
        kind=kind.lower() if ":" not in kind else kind,
        store=given,
        at_exit=at_exit,
        every_seconds=seconds,
        every_steps=steps,
        level=_level(environ.get(LOGLEVEL, "WARNING")),
        strict=_flag(environ, STRICT),
        again=_flag(environ, AGAIN),
        grace_seconds=grace,
    )


def _switch(value: str, key: str) -> bool:
    try:
        return _SWITCH[value.lower()]
    except KeyError:
        raise BadVariable(
            f"{CONFIG} has {key}={value}, expected {key}=enabled or {key}=disabled."
        ) from None


def _interval(word: str) -> tuple[float | None, int | None]:
    """Return seconds and steps, one of which is None."""
    try:
        if word.endswith("steps"):
            steps = int(word.removesuffix("steps"))
            if steps > 0:
                return None, steps
        elif 0 < float(word) < float("inf"):
            return float(word), None
    except ValueError:
        pass
    raise BadVariable(
        f"{CONFIG} has periodic_saving_interval={word}, expected a positive number of seconds or "
        "of steps. Write periodic_saving_interval=300, or 500steps."
    )


def _seconds(word: str) -> float:
    try:
        if 0 < float(word) < float("inf"):
            return float(word)
    except ValueError:
        pass
    raise BadVariable(f"{CONFIG} has grace_seconds={word}, expected a positive number of seconds.")


def _level(word: str) -> int:
    if word.upper() not in _LEVELS:
        raise BadVariable(f"{LOGLEVEL} is {word!r}, expected one of {', '.join(_LEVELS)}.")
    return int(getattr(logging, word.upper()))


def _flag(environ: Mapping[str, str], name: str) -> bool:
    word = environ.get(name, "0") or "0"
    if word not in ("0", "1"):
        raise BadVariable(f"{name} is {word!r}, expected 0 or 1.")
    return word == "1"
