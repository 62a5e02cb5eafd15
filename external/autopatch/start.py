"""What an interpreter does at its start where `LATTICE_AUTOPATCH` is set: begin again, patched.

`python train.py --lr 3` becomes `python -m curitorch.external.autopatch train.py --lr 3`: the same
process, so that signals and launchers find it. Programs that are installed (pip, torchrun), worker
processes (`-c`) and the runner itself are left alone. Called by `curitorch_autopatch.pth`, twice in
some environments, and by nobody else.
"""

import os
import sys
from collections.abc import Sequence

RUNNER = "curitorch.external.autopatch"
VARIABLE = "LATTICE_AUTOPATCH"
_WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")
_NOTEBOOKS = ("ipykernel", "ipykernel_launcher", "colab_kernel_launcher")


def start() -> None:
    """Begin again with the runner, if this interpreter is to run a user's program."""
    if not os.environ.get(VARIABLE):
        return
    options, program = split(sys.orig_argv)
    if program[:1] == ["-m"] and program[1:2] and program[1].split(".")[0] in _NOTEBOOKS:
        _refuse_in_notebooks()
    elif is_users(program):
        words = program if program[0] == "-m" else ["--", *program]
        os.execv(sys.executable, [sys.orig_argv[0], *options, "-m", RUNNER, *words])


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the interpreter's options and the program of a command line, `["-m", …]` or a path.

    The program is empty where there is none to run: `-c`, standard input, a prompt.
    """
    options: list[str] = []
    rest = list(words[1:])
    while rest:
        word = rest.pop(0)
        if word in _WITH_VALUE:
            options += [word, *rest[:1]]
            rest = rest[1:]
        elif word == "--" or word.startswith("--"):
            options.append(word)
        elif word == "-":
            return options, []
        elif not word.startswith("-"):
            return options, [word, *rest]
        else:
            for position, letter in enumerate(word[1:], 1):
                if letter == "m":
                    before, after = word[:position], word[position + 1 :]
                    options += [before] if len(before) > 1 else []
                    return options, ["-m", *([after] if after else []), *rest]
                if letter == "c":
                    return options, []
                if letter in "WX":
                    break
            options.append(word)
            if word[-1] in "WX" and "W" not in word[1:-1] and "X" not in word[1:-1]:
                options += rest[:1]
                rest = rest[1:]
    return options, []


def is_users(program: Sequence[str]) -> bool:
    """Return whether a program is the user's own, not one that is installed or ours."""
    if not program:
        return False
    if program[0] == "-m":
        return len(program) > 1 and _is_in_own_folder(program[1].split(".")[0])
    path = os.path.realpath(program[0])
    return os.path.isfile(path) and not is_installed(path)  # noqa: PTH113 - pathlib takes 5 ms


def is_installed(path: str) -> bool:
    """Return whether a file belongs to Python, its packages or its commands."""
    prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix}
    places = [os.path.join(p, part) for p in prefixes for part in ("lib", "lib64", "bin")]  # noqa: PTH118
    return any(path.startswith(os.path.realpath(p) + os.sep) for p in places) or (
        f"{os.sep}site-packages{os.sep}" in path
    )


def _is_in_own_folder(top: str) -> bool:
    """Return whether a package or module is found before those that are installed."""
    if top == RUNNER.partition(".")[0]:
        return False
    places = [os.getcwd(), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]  # noqa: PTH109
    return any(
        os.path.exists(os.path.join(place, top + end))  # noqa: PTH110, PTH118
        for place in places
        if place and not is_installed(os.path.realpath(place) + os.sep)
        for end in (".py", os.sep)
    )


def _refuse_in_notebooks() -> None:
    from wrapt import register_post_import_hook

    def refuse(module: object) -> None:
        raise RuntimeError(
            f"{VARIABLE} is set, but a notebook cannot be continued: its cells run in any order. "
            f"Run a script, or unset {VARIABLE} and start the kernel again."
        )

    register_post_import_hook(refuse, "torch")
