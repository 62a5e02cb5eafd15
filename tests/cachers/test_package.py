import subprocess
import sys


def test_importing_and_checking_import_neither_torch_nor_lightning(tmp_path):
    probe = (
        "import sys, curitorch.cachers as c\n"
        "for cacher in (c.LightningModelCacher, c.TrainingRunCacher, c.DatasetCacher):\n"
        "    assert not cacher(sys.argv[1]).check()\n"
        "assert callable(c.load_model) and callable(c.TrainingRun)\n"
        "sys.exit(str({'torch', 'lightning', 'pytorch_lightning'} & set(sys.modules) or '') or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_exported_name_is_there():
    import curitorch.cachers

    for name in curitorch.cachers.__all__:
        assert hasattr(curitorch.cachers, name)
