import subprocess
import sys

import curifactory
from curifactory import caching, reporting, staging

from curitorch.params import curifactory_api


def test_the_api_is_the_installed_curifactory():
    for name in curifactory_api.__all__:
        homes = (curifactory, caching, reporting, staging)
        if name != "submodule":
            ours = getattr(curifactory_api, name)
            assert any(getattr(home, name, None) is ours for home in homes), name
    assert curifactory_api.submodule("cli").__name__ == "curifactory.cli"


def run_with_packages(tmp_path, files):
    """Import our API in a process that finds `files` before the installed packages."""
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from curitorch.params import curifactory_api as api\n"
        "print(api.Record, api.LinePlotReporter, api.submodule('cli').__name__)"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


CLASSIC = """
class Stub: pass
ExperimentParameters = Record = ArtifactManager = Lazy = Stub
set_hash_functions = stage = aggregate = Stub
"""
REPORTERS = ("Reportable", "HTMLReporter", "JsonReporter", "DFReporter", "FigureReporter")


def test_the_announced_new_home_is_found(tmp_path):
    done = run_with_packages(
        tmp_path,
        {
            "curifactory/__init__.py": "class Manager: 'the next generation'",
            "curifactory/old/__init__.py": CLASSIC,
            "curifactory/old/caching.py": "class Cacheable: pass",
            "curifactory/old/staging.py": "class SkippedOutput: pass",
            "curifactory/old/reporting.py": "class LinePlotReporter: pass\n"
            + "".join(f"class {name}: pass\n" for name in REPORTERS),
            "curifactory/old/cli.py": "",
        },
    )
    assert done.stdout.split()[-1] == "curifactory.old.cli", done.stderr
    assert "curifactory.old.reporting.LinePlotReporter" in done.stdout


def test_a_curifactory_without_the_classic_api_gets_a_sentence(tmp_path):
    done = run_with_packages(tmp_path, {"curifactory/__init__.py": ""})
    assert "found neither as 'curifactory' nor as 'curifactory.old'. Install it:" in done.stderr


def test_what_curifactory_itself_lacks_is_named(tmp_path):
    done = run_with_packages(tmp_path, {"curifactory/__init__.py": "import no_such_module"})
    assert "No module named 'no_such_module'" in done.stderr.splitlines()[-1]


def test_curifactory_brings_no_torch():
    code = (
        "import curitorch.params.experiment, sys\n"
        "print([m for m in ('torch', 'lightning') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
