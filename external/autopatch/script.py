"""Running the user's program: its files are rewritten as they are loaded, those of packages not."""

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from .rewriting import CT, Rewriter
from .source import Source
from .start import is_installed
from .tracker import Tracker


class Script:
    """A user's program, `["-m", "pkg.train", …]` or `["train.py", …]`.

    Args:
        words: As on a command line.
        tracker: That the rewritten code calls.
        on_source: Called with each file before it runs.
    """

    def __init__(
        self, words: Sequence[str], tracker: Tracker, on_source: Callable[[Source], None]
    ) -> None:
        self.words = list(words)
        self.tracker = tracker
        self.on_source = on_source
        self.root = Path.cwd()

    @property
    def name(self) -> str:
        """What it is called in checkpoints."""
        return self.words[1] if self.words[0] == "-m" else Path(self.words[0]).name

    def run(self) -> None:
        """Run it as `python` would: `__main__`, `sys.argv` and `sys.path` are what it expects."""
        sys.meta_path.insert(0, _Finder(self))
        if self.words[0] == "-m":
            self._run_module(self.words[1])
            return
        path = Path(self.words[0])
        sys.argv = self.words
        self.root = path.resolve().parent
        sys.path[0] = str(self.root)
        main = ModuleType("__main__")
        self._run_main(main, path, str(path.absolute()), None)

    def _run_module(self, name: str) -> None:
        sys.argv = self.words[1:]
        sys.path[0] = str(Path.cwd())
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
        if spec is None or spec.origin is None:
            sys.exit(f"{sys.executable}: No module named {name}")
        main = ModuleType("__main__")
        main.__package__ = spec.parent
        main.__spec__ = spec
        sys.argv[0] = spec.origin
        self._run_main(main, Path(spec.origin), spec.origin, spec)

    def _run_main(self, main: ModuleType, path: Path, file: str, spec: Any) -> None:
        try:
            text = path.read_bytes()
        except OSError as error:
            sys.exit(f"{sys.executable}: can't open file {file!r}: {error.strerror}")
        main.__file__ = file
        main.__dict__["__cached__"] = None
        main.__dict__["__builtins__"] = __builtins__
        sys.modules["__main__"] = main
        code = self.compile(text, file, "__main__", main)
        exec(code, main.__dict__)

    def compile(self, text: bytes, file: str, name: str, module: ModuleType) -> CodeType:
        """Return the rewritten code of a file, and make its namespace known."""
        from ..checksum import Checksum
        from .users import USERS

        digest = Checksum()
        digest.update(text)
        source = Source(file, self._key(file), digest.text)
        tree = ast.parse(text, file)
        Rewriter(source, len(self.tracker.statements)).rewrite(tree)
        code: CodeType = compile(tree, file, "exec", dont_inherit=True)
        self.tracker.statements.extend(source.statements)
        self.tracker.sources[file] = source
        self.tracker.namespaces[source.key] = module.__dict__
        USERS.files.add(file)
        module.__dict__[CT] = self.tracker
        self.on_source(source)
        return code

    def _key(self, file: str) -> str:
        path = Path(file).resolve()
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else path.name


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a user's module, rewritten; never from or to compiled files."""

    def __init__(self, script: Script, name: str, path: str) -> None:
        super().__init__(name, path)
        self._script = script

    def exec_module(self, module: ModuleType) -> None:
        text = self.get_data(self.path)
        exec(self._script.compile(text, self.path, self.name, module), module.__dict__)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, script: Script) -> None:
        self._script = script

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return the spec of a user's module, with the loader that rewrites it."""
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if (
            spec is None
            or type(spec.loader) is not importlib.machinery.SourceFileLoader
            or spec.origin is None
            or name.split(".")[0] == __name__.split(".")[0]
            or is_installed(spec.origin)
        ):
            return None
        spec.loader = _Loader(self._script, name, spec.origin)
        return spec
