"""A settings dataclass as command-line words, and a click command's options as the dataclass.

    to_arguments(CheckpointParams(keep=5))          ["--keep", "5"]
    @click.command() @options_for(CheckpointParams) def main(**options): …
    from_options(CheckpointParams, options)         CheckpointParams(keep=5)

Every field is one option that takes one word, see `words`; its help is `metadata["help"]`.
"""

import dataclasses
import functools
import typing
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .words import NONE, from_word, metavar, to_word

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T", bound="DataclassInstance")


def to_arguments(settings: "DataclassInstance", *, leave_out: Collection[str] = ()) -> list[str]:
    """Return the words that bring `settings` to a command with `options_for(type(settings))`.

    Fields that equal their default have no words, nor have those named in `leave_out`. The list
    is for a process, never for a shell; `shlex.join` prints it to be pasted.

    Raises:
        TypeError: Values of a field's type have no word.
        ValueError: A value cannot be sent, or `leave_out` names no field.
    """
    known = _fields(type(settings))
    unknown = sorted(set(leave_out) - {field.name for field in known})
    if unknown:
        raise ValueError(
            f"leave_out names {unknown[0]!r}, which {type(settings).__name__} does not have. "
            f"It has {', '.join(field.name for field in known)}."
        )
    hints = _hints(type(settings))
    arguments: list[str] = []
    for field in known:
        if field.name in leave_out:
            continue
        word = to_word(field.name, hints[field.name], getattr(settings, field.name))
        if word == _default_word(field, hints[field.name]):
            continue
        if word.startswith("-"):  # it must not be taken for an option
            arguments.append(f"--{field.name}={word}")
        else:
            arguments += [f"--{field.name}", word]
    return arguments


def options_for(*classes: type["DataclassInstance"]) -> Callable[[F], F]:
    """Decorate a click command's function with one option for each field of `classes`.

    `--batch_size` and `--batch-size` are the same option; the function gets `batch_size`.

    Raises:
        TypeError: Values of a field's type have no word.
        ValueError: Two classes have a field of the same name.
    """
    owners: dict[str, str] = {}
    options: list[Callable[[F], F]] = []
    for cls in classes:
        hints = _hints(cls)
        for field in _fields(cls):
            if field.name in owners:
                raise ValueError(
                    f"{owners[field.name]} and {cls.__name__} both have a field {field.name!r}, "
                    "expected different names. Give them to two commands, or rename one."
                )
            owners[field.name] = cls.__name__
            options.append(_option(field, hints[field.name]))

    def decorate(function: F) -> F:
        for option in reversed(options):  # click lists the last one first
            function = option(function)
        return function

    return decorate


def from_options(cls: type[T], options: Mapping[str, object]) -> T:
    """Make a `cls` of what click gave the command; other options in it are let be.

    Raises:
        click.UsageError: `cls` refused a value, or a field without default is missing; click
            prints the sentence and exits with status 2.
    """
    values = {field.name: options[field.name] for field in _fields(cls) if field.name in options}
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise click.UsageError(str(error)) from error


class _Word(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.5 only
    """click's view of one field's words."""

    def __init__(self, hint: object) -> None:
        self.hint = hint
        self.name = metavar(hint)

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        """Read the word; a value given from Python, as by `default_map`, passes as it is."""
        if not isinstance(value, str):
            return value
        try:
            return from_word(self.hint, value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _option(field: "dataclasses.Field[Any]", hint: object) -> "Callable[[F], F]":
    names = dict.fromkeys([f"--{field.name}", f"--{field.name.replace('_', '-')}"])
    default = _default_word(field, hint)
    attributes: dict[str, Any] = {} if default is None else {"default": default}
    return click.option(
        field.name,
        *names,
        type=_Word(hint),
        metavar=metavar(hint),
        help=field.metadata.get("help"),
        required=default is None,
        show_default=default not in (None, "", NONE, "{}", "[]"),
        **attributes,
    )


def _default_word(field: "dataclasses.Field[Any]", hint: object) -> str | None:
    """Return the word of the field's default; None where it has no default."""
    if field.default is not dataclasses.MISSING:
        return to_word(field.name, hint, field.default)
    if field.default_factory is not dataclasses.MISSING:
        return to_word(field.name, hint, field.default_factory())
    return None


def _fields(cls: type["DataclassInstance"]) -> list["dataclasses.Field[Any]"]:
    return [field for field in dataclasses.fields(cls) if field.init]


@functools.cache
def _hints(cls: type["DataclassInstance"]) -> dict[str, object]:
    return typing.get_type_hints(cls)
