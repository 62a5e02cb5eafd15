"""What pyproject.toml cannot say: two files beside the package, in site-packages itself.

Python reads `curitorch_autopatch.pth` at its start (from 3.15 on the `.start` file instead), see
external/autopatch/start.py. They go there in an editable install as well, which runs
`install_data`, but not `install_lib`.
"""

import shutil
from pathlib import Path

from setuptools import Command, Distribution, setup
from setuptools.command.build_py import build_py

FILES = ["curitorch_autopatch.pth", "curitorch_autopatch.start"]


class BesideThePackage(Command):
    """Puts the files where Python looks for them, not below the prefix."""

    user_options = ()
    install_dir = root = None  # what `install` may set

    def initialize_options(self) -> None:
        """There are no options."""
        self.outfiles: list[str] = []

    def finalize_options(self) -> None:
        """There are no options."""

    def run(self) -> None:
        """Copy the files into site-packages."""
        folder = Path(self.get_finalized_command("install").install_purelib)
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            self.outfiles.append(shutil.copy(Path(__file__).parent / name, folder / name))

    def get_inputs(self) -> list[str]:
        """Return what is copied."""
        return FILES

    def get_outputs(self) -> list[str]:
        """Return where it went."""
        return [str(path) for path in self.outfiles]


class WithoutThisFile(build_py):
    """Packs the modules of the repository's root, which is the package, but not this one."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """Return (package, module, file) of what is packed."""
        found = super().find_package_modules(package, package_dir)
        return [each for each in found if each[:2] != ("curitorch", "setup")]


class WithData(Distribution):
    """Answers setuptools' `editable_wheel`, which asks for `has_data` before `install_data`."""

    def has_data(self) -> bool:
        """Return that there is."""
        return True


setup(
    distclass=WithData,
    cmdclass={"build_py": WithoutThisFile, "install_data": BesideThePackage},
    data_files=[("", FILES)],
)
