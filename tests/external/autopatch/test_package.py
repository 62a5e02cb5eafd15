"""`python -m package.train` with relative imports and weights that it loads, interrupted."""

import sys

import pytest
import torch

from curitorch.external.stores import LocalStore

pytestmark = pytest.mark.slow


def test_a_module_of_a_package_goes_on_exactly(runner, tmp_path):
    weights = tmp_path / "weights.pt"
    code = (
        "import torch; from vision.net import smallnet; torch.manual_seed(9); "
        f"torch.save(smallnet().state_dict(), {str(weights)!r})"
    )
    path = {"PYTHONPATH": runner.scripts}
    made = runner.run(None, command=[sys.executable, "-c", code], patched=False, **path)
    assert made.status == 0, made.err
    command = [sys.executable, "-m", "vision.train", "--pretrained", str(weights)]
    plain = runner.run(None, command=command, patched=False, **path)
    assert plain.status == 0, plain.err
    first = runner.interrupt(None, command=command, after=4, **path)
    second = runner.interrupt(None, command=command, after=5, **path)
    rest = runner.run(None, command=command, **path)
    said = first.err + second.err + rest.err
    # The folder has what autopatch's tests put there, which the last line lists.
    names = "'sitecustomize', 'store'"
    assert (first.out + second.out + rest.out).replace(f", {names}", "") == plain.out, said
    assert "Not exact" not in said
    assert LocalStore(runner.store).list()[-1].details["script"] == "vision.train"
    assert torch.load(tmp_path / "checkpoint.pth.tar", weights_only=True)["epoch"] == 3
