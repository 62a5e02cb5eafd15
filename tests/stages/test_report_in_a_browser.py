"""A report of a real sweep, opened in a real browser: what can be seen of it."""

import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from curitorch.external.viewing.panel import COLORS

LOOK = """
<pre id="seen"></pre>
<script>
addEventListener("load", () => {
  const box = element => {
    const place = element.getBoundingClientRect();
    return [place.left, place.top, place.right, place.bottom].map(Math.round);
  };
  document.getElementById("seen").textContent = JSON.stringify({
    images: [...document.images].map(each => ({
      name: each.alt, width: each.naturalWidth, whole: each.complete, place: box(each)})),
    tables: [...document.querySelectorAll(".curitorch table")].map(each => ({
      rows: each.rows.length, text: each.innerText, place: box(each)})),
    height: document.documentElement.scrollHeight,
  });
});
</script>
"""
"""A page that says of itself what is on it; `--dump-dom` prints that."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Open a file in Chromium, with options of its own."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None and (os.getuid() != 0 or shutil.which("apt-get") is None):
        pytest.skip("needs root and apt-get, to install Chromium")
    if program is None:
        pytest.skip("Chromium is not here: `make test` installs it")

    def browse(page: Path, *options: str) -> str:
        profile = tmp_path_factory.mktemp("profile")  # no process of another has it locked
        done = subprocess.run(
            [
                *(program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *("--disable-dev-shm-usage", "--disable-background-networking"),
                *(f"--user-data-dir={profile}", "--window-size=1300,1000", *options, page.as_uri()),
            ],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return browse


def look_at(browser, report: Path, folder: Path) -> tuple[dict, Image.Image]:
    """Return what is on a report's page, and a picture of it."""
    copy = folder / "moved elsewhere"
    shutil.copytree(report.parent, copy)
    page = copy / "looked at.html"
    page.write_text(report.read_text() + LOOK)
    dom = browser(page, "--dump-dom")
    text = re.search(r'<pre id="seen">(.*?)</pre>', dom, re.DOTALL)[1]
    seen = json.loads(text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    picture = folder / "seen.png"
    browser(
        copy / report.name,
        f"--window-size=1300,{seen['height']}",
        f"--screenshot={picture}",
    )
    return seen, Image.open(io.BytesIO(picture.read_bytes())).convert("RGB")


def shows(picture: Image.Image, place: list[int], color: str) -> int:
    """Return how many pixels at `place` have about that color."""
    wanted = [int(color[at : at + 2], 16) for at in (1, 3, 5)]
    part = picture.crop(place)
    pixels = part.get_flattened_data() if hasattr(part, "get_flattened_data") else part.getdata()
    return sum(all(abs(a - b) < 24 for a, b in zip(p, wanted, strict=True)) for p in pixels)


SWEEP = {
    "params/one.py": """
        from curitorch.params import LaunchParams, TrainerParams, TrainingParams

        def get_params():
            return [
                TrainingParams(
                    name=f"lr {lr}",
                    trainer=TrainerParams(
                        model="toy.rated:Rated", model_args={"lr": lr}, data="toy.data:loaders",
                        epochs=4, batch_size=8,
                        trainer_args={"enable_model_summary": False, "log_every_n_steps": 1},
                    ),
                    launch=LaunchParams(accelerator="cpu"),
                )
                for lr in (0.02, 0.1, 0.4)
            ]
    """,
    "toy/rated.py": """
        import torch
        from toy.model import Net

        class Rated(Net):
            def __init__(self, lr=0.1):
                super().__init__()
                self.save_hyperparameters()

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)
    """,
    "experiments/toy.py": """
        import curifactory as cf
        from curitorch.cachers import DatasetCacher
        from curitorch.stages import compare_runs, external_training

        @cf.stage([], ["dataset"], [DatasetCacher])
        def make(record):
            path = record.get_dir("raw")
            with open(path + "/data.txt", "w") as file:
                file.write("data")
            return path

        train = external_training(inputs={"dataset": "dataset_path"})
        compare = compare_runs()

        def run(param_sets, manager):
            records = [train(make(cf.Record(manager, params))) for params in param_sets]
            compare(cf.Record(manager, None), records)
    """,
}


@pytest.mark.slow
def test_the_report_of_a_sweep_shows_curves_and_tables_and_no_broken_image(
    project, browser, tmp_path
):
    project.write(SWEEP)
    done = project.run(timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    report = project.path / "reports/_latest/index.html"
    seen, picture = look_at(browser, report.resolve(), tmp_path)
    names = [each["name"] for each in seen["images"]]
    assert sorted(names) == ["loss"] * 3 + ["train_loss", "val/loss"]  # each run's, and overlaid
    assert all(each["whole"] and each["width"] > 500 for each in seen["images"])
    assert all(each["place"][0] >= 0 and each["place"][2] <= 1300 for each in seen["images"])
    for each in seen["images"]:
        drawn = COLORS[:2] if each["name"] == "loss" else COLORS[:3]
        assert all(shows(picture, each["place"], color) > 100 for color in drawn), each["name"]

    texts = [each["text"] for each in seen["tables"]]
    (compared,) = (text for text in texts if text.startswith("run\tlr\t"))
    assert re.findall(r"^(lr [\d.]+)\t([\d.]+)\t", compared, re.MULTILINE) == [
        ("lr 0.02", "0.02"),
        ("lr 0.1", "0.1"),
        ("lr 0.4", "0.4"),
    ]
    for begin in ("metric\tlast\t", "step\tepoch\tMB\t", "name\tvalue"):
        assert sum(text.startswith(begin) for text in texts) == 3, begin
    assert all(each["place"][2] - each["place"][0] > 100 for each in seen["tables"] if each["rows"])

    again = project.run(timeout=200)  # all cached: the report is the same
    assert again.returncode == 0
    assert "Launching" not in again.stdout + again.stderr
    assert report.read_text().count("data:image/png;base64,") == len(names)
