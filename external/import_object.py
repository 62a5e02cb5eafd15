"""Importing what a command line names: `package.module:Class` becomes an object, or a sentence."""

import ast
import importlib
import importlib.util
from pathlib import Path


class ObjectNotFound(LookupError):
    """A name on the command line leads to no object; the message says where the way ends."""


def import_object(name: str, *, option: str) -> object:
    """Import `package.module:Class` (`:Outer.Inner` for a nested one).

    Args:
        name: What the user wrote.
        option: The option that it was given to, for the message.

    Raises:
        ObjectNotFound: The form is wrong, or there is no such module or name in it.
    """
    module_name, qualname = split(name, option=option)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise  # the module is there; something that it imports is not
        raise _no_module(name, module_name, option) from error
    found: object = module
    for part in qualname.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ObjectNotFound(
                f"{option} {name!r}: module {module_name!r} has no {qualname!r}. "
                "Write package.module:Name of something that the module defines."
            ) from None
    return found


def check_object(name: str, *, option: str) -> None:
    """Check `name` as far as that goes without importing its module, which may import torch.

    Raises:
        ObjectNotFound: The form is wrong, or there is surely no such module or name in it.
    """
    module_name, qualname = split(name, option=option)
    try:
        spec = importlib.util.find_spec(module_name)
    except ModuleNotFoundError:
        spec = None
    if spec is None:
        raise _no_module(name, module_name, option)
    if spec.origin is None or not spec.origin.endswith(".py"):
        return
    names = _defined_names(Path(spec.origin))
    if names is not None and qualname.split(".")[0] not in names:
        raise ObjectNotFound(
            f"{option} {name!r}: '{spec.origin}' defines no {qualname.split('.')[0]!r}. "
            "Write package.module:Name of something that the module defines."
        )


def split(name: str, *, option: str) -> tuple[str, str]:
    """Split `package.module:Class` into its two parts.

    Raises:
        ObjectNotFound: `name` does not have that form.
    """
    module_name, colon, qualname = name.partition(":")
    if not (module_name and colon and qualname):
        raise ObjectNotFound(
            f"{option} {name!r} does not name an object. "
            "Write package.module:Name, e.g. my_project.models:Classifier."
        )
    return module_name, qualname


def _no_module(name: str, module_name: str, option: str) -> ObjectNotFound:
    return ObjectNotFound(
        f"{option} {name!r}: there is no module {module_name!r}. "
        f"Run from the folder that contains '{module_name.split('.')[0]}', or add it to PYTHONPATH."
    )


def _defined_names(source: Path) -> set[str] | None:
    """Return the names that a module's top level binds; None if that cannot be read off it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            return None
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
            if node.name == "__getattr__":
                return None
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names
