"""The kinds of stores, and opening one by its kind and settings.

    open_store("local", "root=/data/ckpt")
    open_store("tcp", "job_id=digits,ckpt_service_endpoint=10.0.0.5,ckpt_service_port=8731,…")
    open_store("s3", {"root": "s3://bucket/job/"})
    open_store("my_package.stores:MyStore", "folder=/data")
    open_store("tcp", "…,spool=/scratch/spool,spool_bytes=50GB")

The settings of a kind are the arguments of its class, which is imported only now. With `spool` any
of them is put into through a local folder, without waiting for it: see `SpoolingStore`.
"""

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..import_object import ObjectNotFound, import_object
from .byte_count import parse_bytes
from .settings import BadSettings, parse_settings
from .store import Store

_PACKAGE = __name__.rpartition(".")[0]
KINDS = {
    "local": f"{_PACKAGE}.local:LocalStore",
    "tcp": f"{_PACKAGE}.tcp:TcpStore",
    "remote": f"{_PACKAGE}.tcp:TcpStore",
    "s3": f"{_PACKAGE}.s3:S3Store",
}
ALSO_CALLED = {  # what a setting may be called -> what the argument may be
    "ckpt_service_endpoint": ("endpoint", "host"),
    "ckpt_service_port": ("port",),
}
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def open_store(kind: str, settings: str | Mapping[str, Any] = "") -> Store:
    """Open the store of that kind; the caller closes it.

    Args:
        kind: A key of `KINDS`, or `package.module:Class` of a store of your own.
        settings: A line `key=value,key=value`, or a mapping; words become what the class takes.
            `spool`, a folder, and `spool_bytes`, what may lie there at most, are for every kind.

    Raises:
        BadSettings: There is no such kind, or a key is unknown, missing, or has an unfit value.
        ModuleNotFoundError: An optional dependency is missing; the message names the extra.
    """
    given = dict(parse_settings(settings) if isinstance(settings, str) else settings)
    spool = _spool(given)
    store = _open(kind, given)
    if spool is None:
        return store
    from .spool import SpoolingStore

    try:
        return SpoolingStore(store, spool[0], limit_bytes=spool[1])
    except BaseException:
        store.close()
        raise


def _spool(given: dict[str, Any]) -> tuple[Path, int] | None:
    """Take the settings of a spool out of `given`; returns its folder and most bytes."""
    folder, count = given.pop("spool", None), given.pop("spool_bytes", None)
    if folder is None and count is None:
        return None
    if not folder or count is None:
        raise BadSettings(
            f"A spool needs a folder and its most bytes, given are spool={folder or ''} and "
            f"spool_bytes={'' if count is None else count}. Write both, e.g. "
            "spool=/scratch/spool,spool_bytes=50GB."
        )
    try:
        return Path(folder), parse_bytes(str(count))
    except ValueError as error:
        raise BadSettings(f"spool_bytes: {error}") from error


def _open(kind: str, given: Mapping[str, Any]) -> Store:
    store_class = _class_of(kind)
    parameters = inspect.signature(store_class, eval_str=True).parameters
    arguments: dict[str, Any] = {}
    for key, value in given.items():
        name = _argument(key, parameters)
        if name is None:
            raise BadSettings(
                f"The {kind} store has no setting {key!r}. Its settings: {_names(parameters)}."
            )
        if name in arguments:
            raise BadSettings(f"The {kind} store's {name!r} is given twice. Give it once.")
        arguments[name] = _value(value, parameters.get(name), f"The {kind} store's setting {key!r}")
    missing = [
        name
        for name, parameter in parameters.items()
        if name not in arguments and parameter.default is parameter.empty and _is_named(parameter)
    ]
    if missing:
        raise BadSettings(
            f"The {kind} store needs {missing[0]!r}, which is not among its settings "
            f"({', '.join(given) or 'there are none'}). Write {missing[0]}=…; "
            f"all that it takes: {_names(parameters)}."
        )
    store: Store = store_class(**arguments)
    return store


def _class_of(kind: str) -> Callable[..., Store]:
    if kind not in KINDS and ":" not in kind:
        raise BadSettings(
            f"There is no {kind!r} store. Use one of {', '.join(KINDS)}, or package.module:Class "
            "of your own."
        )
    try:
        found = import_object(KINDS.get(kind, kind), option="Store")
    except ObjectNotFound as error:
        raise BadSettings(str(error)) from error
    if not (isinstance(found, type) and issubclass(found, Store)):
        raise BadSettings(f"{kind!r} is not a subclass of Store. Name one.")
    return found


def _is_named(parameter: inspect.Parameter) -> bool:
    return parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)


def _names(parameters: Mapping[str, inspect.Parameter]) -> str:
    return ", ".join(name for name, each in parameters.items() if _is_named(each)) or "none"


def _argument(key: str, parameters: Mapping[str, inspect.Parameter]) -> str | None:
    """Return the name of the argument that a setting is for."""
    for name in (key, *ALSO_CALLED.get(key, ())):
        if name in parameters and _is_named(parameters[name]):
            return name
    takes_all = any(each.kind == each.VAR_KEYWORD for each in parameters.values())
    return key if takes_all else None


def _value(value: Any, parameter: inspect.Parameter | None, what: str) -> Any:
    """Return a word of a settings line as the argument's type; other values as they are."""
    if not isinstance(value, str) or parameter is None:
        return value
    kinds = _types(parameter.annotation)
    try:
        if str in kinds:
            return value
        if bool in kinds:
            return _WORDS[value.lower()]
        for kind in (int, float, Path):
            if kind in kinds:
                return kind(value)
    except (KeyError, ValueError):
        wanted = " or ".join(kind.__name__ for kind in kinds if kind is not types.NoneType)
        raise BadSettings(f"{what} is {value!r}, expected {wanted}.") from None
    return value


def _types(annotation: Any) -> tuple[Any, ...]:
    """Return the types of an annotation such as `float | None`."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return typing.get_args(annotation)
    return (annotation,)
