import pkgutil
import subprocess
import sys

import pytest

import curitorch.params

NEED_CURIFACTORY = {"curifactory_api", "experiment"}


def test_settings_import_without_curifactory_and_bring_neither_it_nor_torch():
    names = {module.name for module in pkgutil.iter_modules(curitorch.params.__path__)}
    assert names >= NEED_CURIFACTORY
    imports = ", ".join(f"curitorch.params.{name}" for name in sorted(names - NEED_CURIFACTORY))
    code = (
        "import sys; sys.modules['curifactory'] = None\n"
        f"import curitorch.params, {imports}\n"
        "from curitorch.params import CheckpointParams, LaunchParams, TrainerParams\n"
        "print([m for m in ('torch', 'lightning', 'numpy', 'pandas') if m in sys.modules])\n"
        "from curitorch.params import TrainingParams\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
    assert "The classic curifactory API was found neither" in done.stderr.splitlines()[-1]


def test_training_params_come_with_the_package():
    from curitorch.params.experiment import TrainingParams

    assert curitorch.params.TrainingParams is TrainingParams
    assert set(curitorch.params.__all__) <= set(dir(curitorch.params))


def test_a_wrong_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"'curitorch\.params' has no attribute 'Nothing'"):
        curitorch.params.Nothing  # noqa: B018  # the attribute is what is tested
