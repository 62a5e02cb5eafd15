"""Tells torchmetrics that scipy, transformers and matplotlib are not installed.

It imports them because they are there, and Lightning imports it: 3 of the 7 seconds of processor
time that `import lightning.pytorch` takes in each of the tests' many processes. Without the extras
of curitorch they are not there for many users either; who imports them himself gets them.
"""

import sys

UNUSED = ("scipy", "transformers", "matplotlib")


class BeforeTorchmetrics:
    """A finder that finds nothing, but hears that torchmetrics is about to be imported."""

    def find_spec(self, name, path=None, target=None):
        if name == "torchmetrics":
            hide()


def hide():
    from lightning_utilities.core import imports

    is_available, check = imports.package_available, imports.RequirementCache._check_available

    def check_available(requirement):
        check(requirement)
        if (requirement.requirement or "").startswith(UNUSED):
            requirement.available = False

    imports.package_available = lambda name: name not in UNUSED and is_available(name)
    imports.RequirementCache._check_available = check_available


sys.meta_path.insert(0, BeforeTorchmetrics())
