"""Models of a user's project, of every kind that is saved and loaded."""

import sys
import textwrap

import pytest

ZOO = """
    from dataclasses import dataclass
    from functools import partial
    from pathlib import Path
    import numpy as np
    import torch
    from lightning.pytorch import LightningModule

    class Base(LightningModule):
        def __init__(self, hidden):
            super().__init__()
            self.layer = torch.nn.Linear(2, hidden)
        def forward(self, x):
            return self.layer(x)
        def training_step(self, batch):
            return self(batch).pow(2).sum()
        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=1e-2)

    class Net(Base):
        def __init__(self, hidden=4, name="a"):
            super().__init__(hidden)
            self.save_hyperparameters()

    class Outer:
        class Net(Net):
            class Deeper(Net):
                pass

    class Bare(Base):
        def __init__(self, hidden):
            super().__init__(hidden)

    class Partly(Base):
        def __init__(self, hidden, depth):
            super().__init__(hidden)
            self.depth = depth
            self.save_hyperparameters(ignore=["depth"])

    class Whole(Base):
        def __init__(self, config):
            super().__init__(config["hidden"])
            self.save_hyperparameters(config)

    class Remembers(Net):
        seen = None
        def on_save_checkpoint(self, checkpoint):
            checkpoint["seen"] = 17
        def on_load_checkpoint(self, checkpoint):
            self.seen = checkpoint["seen"]

    class Any(Base):
        def __init__(self, what):
            super().__init__(3)
            self.save_hyperparameters()

    class Reserved(Base):
        def __init__(self, strict):
            super().__init__(3)

    @dataclass
    class Settings:
        hidden: int = 3

    needy = {
        "pathlib.PosixPath": Path("/data"),
        "zoo.models.Settings": Settings(),
        "functools.partial": partial(int, "3"),
        "numpy": np.float64(3),
        "torch.nn.modules.linear.Linear": torch.nn.Linear(1, 1),
    }
"""


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """The models of a project that can be imported here."""
    project = tmp_path_factory.mktemp("project")
    (project / "zoo").mkdir()
    (project / "zoo" / "__init__.py").touch()
    (project / "zoo" / "models.py").write_text(textwrap.dedent(ZOO))
    sys.path.insert(0, str(project))
    import zoo.models

    yield zoo.models
    sys.path.remove(str(project))
    for name in ("zoo", "zoo.models"):
        del sys.modules[name]
