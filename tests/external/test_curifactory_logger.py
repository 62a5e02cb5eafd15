"""The logger in real Trainers: what stands in the journal afterwards."""

import json
import os
import pickle
import subprocess
import sys
import textwrap
import warnings
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

import curitorch.external
from curitorch.external import background_journal
from curitorch.external.curifactory_logger import CurifactoryLogger
from curitorch.external.periodic_checkpoint import PeriodicCheckpoint
from curitorch.external.run_records import hyperparameters, model_summary, saved_files
from curitorch.external.rundir import TrainingRun
from curitorch.params import CheckpointParams

X = torch.arange(80.0).reshape(40, 2) / 80
DATA = DataLoader(TensorDataset(X, X.sum(1, keepdim=True)), 8)  # 5 batches


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Let what is logged be waited for, however long the disk takes."""
    monkeypatch.setattr(background_journal, "PATIENCE", 100.0)


class Net(LightningModule):
    def __init__(self, width=2, lr=0.1, note=None):
        super().__init__()
        self.save_hyperparameters()
        torch.manual_seed(4)  # its loss falls in every epoch
        self.body = torch.nn.Sequential(torch.nn.Linear(width, 3), torch.nn.Tanh())
        self.head = torch.nn.Linear(3, 1)

    def training_step(self, batch, batch_idx):
        loss = torch.nn.functional.mse_loss(self.head(self.body(batch[0])), batch[1])
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        loss = torch.nn.functional.mse_loss(self.head(self.body(batch[0])), batch[1])
        self.log("val/loss", loss)

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)


def trainer(logger, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Trainer(
            logger=logger,
            accelerator="cpu",
            devices=1,
            **{
                "max_epochs": 2,
                "log_every_n_steps": 1,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "enable_checkpointing": bool(options.get("callbacks")),
                **options,
            },
        )


def events(run, kind=None):
    return [each for each in TrainingRun(run).events() if kind in (None, each["event"])]


def steps(run):
    return [each["step"] for each in events(run, "step")]


def test_the_package_offers_it_and_brings_lightning_only_then(tmp_path):
    assert curitorch.external.CurifactoryLogger is CurifactoryLogger
    code = "import sys, curitorch.external\nprint('lightning' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    with pytest.raises(AttributeError, match="no attribute 'Logger'"):
        curitorch.external.Logger  # noqa: B018
    with pytest.raises(ValueError, match=r'Say where the journal goes: CurifactoryLogger\("runs'):
        CurifactoryLogger()


@pytest.mark.filterwarnings("ignore")
def test_a_trainer_leaves_metrics_settings_the_model_and_what_it_saved(tmp_path):
    run = tmp_path / "a $run ü"
    logger = CurifactoryLogger(run)
    keeper = ModelCheckpoint(monitor="val/loss", save_top_k=1)
    fit = trainer(logger, callbacks=[keeper])
    fit.fit(Net(note=Path("x")), DATA, DATA)
    fit.save_checkpoint(run / "by hand.ckpt")
    fit.save_checkpoint(tmp_path / "elsewhere.ckpt", weights_only=True)

    assert fit.callbacks[-1] is keeper  # Lightning wants it there
    assert keeper.dirpath == str(run / "journal" / "checkpoints")
    table = TrainingRun(run).metrics()
    assert table["step"].tolist() == steps(run) == [*range(1, 11)]
    assert table["train/loss"].notna().all()
    assert table["val/loss"].dropna().index.tolist() == [4, 9]
    assert table["epoch"].tolist() == [0] * 5 + [1] * 5
    assert table["time"].is_monotonic_increasing
    assert (table["time"].diff().dropna() > 0).all()
    assert hyperparameters(events(run)) == {"width": 2, "lr": 0.1, "note": "x"}

    model = model_summary(events(run))
    assert (model["type"], model["parameters"], model["bytes"]) == ("Net", 13, 52)
    assert [(each["name"], each["type"], each["parameters"]) for each in model["layers"]] == [
        ("body", "Sequential", 9),
        ("body.0", "Linear", 9),
        ("body.1", "Tanh", 0),
        ("head", "Linear", 4),
    ]
    first, second, by_hand, elsewhere = saved_files(events(run), run)
    assert first["file"] == "journal/checkpoints/epoch=0-step=5.ckpt"
    assert (first["step"], first["exists"], first["is_best"]) == (5, False, False)
    assert (second["step"], second["exists"], second["is_best"]) == (10, True, True)
    assert second["monitor"] == "val/loss"
    assert second["score"] == pytest.approx(table["val/loss"].iloc[-1])
    assert second["bytes"] == (run / second["file"]).stat().st_size
    assert (by_hand["file"], by_hand["score"]) == ("by hand.ckpt", None)
    assert elsewhere["file"] == "../elsewhere.ckpt"
    assert elsewhere["exists"]
    assert [len(each["scores"]) for each in events(run, "kept")] == [1, 1]  # the new ones only
    assert [each["status"] for each in events(run, "end")] == ["success"]


@pytest.mark.filterwarnings("ignore")
def test_steps_are_those_of_the_optimizer_and_a_users_own_stay_metrics(tmp_path):
    class Odd(Net):
        def training_step(self, batch, batch_idx):
            self.log("step", 1000.0 + batch_idx)  # Lightning takes it as the logger's step
            self.log("epoch", 0.5)
            self.log("learning rate [%]", 3.0)
            self.logger.log_metrics({"direct": torch.tensor(float("nan"))}, step=self.global_step)
            return super().training_step(batch, batch_idx)

    run = tmp_path / "run"
    trainer(CurifactoryLogger(run), max_epochs=1, accumulate_grad_batches=2).fit(Odd(), DATA)
    assert steps(run) == [1, 2, 3]
    table = TrainingRun(run).metrics()
    logged = table[table["train/loss"].notna()]
    assert logged["step"].tolist() == [1, 2, 3]
    assert logged["metric/step"].tolist() == [1001.0, 1003.0, 1004.0]
    assert logged["metric/epoch"].tolist() == [0.5] * 3
    assert table["epoch"].tolist() == [0] * len(table)
    direct = [e for e in events(run, "metric") if "direct" in e["metrics"]]
    assert [e["step"] for e in direct] == [0, 0, 1, 1, 2]
    assert all(e["metrics"]["direct"] != e["metrics"]["direct"] for e in direct)  # NaN


@pytest.mark.filterwarnings("ignore")
def test_a_later_fit_is_another_attempt_and_every_step_stands_once(tmp_path):
    run, saved = tmp_path / "run", tmp_path / "at six.ckpt"

    class Saves(Net):
        def on_train_batch_end(self, *_):
            if self.global_step == 6:
                self.trainer.save_checkpoint(saved)

    trainer(CurifactoryLogger(run), max_steps=9).fit(Saves(), DATA)
    again = trainer(CurifactoryLogger(run), max_epochs=3)
    again.fit(Net(), DATA, ckpt_path=saved)
    again.test(Net(), DATA, verbose=False)
    begun = events(run, "attempt")
    assert [(e["attempt"], e["resume_step"], e["world_size"]) for e in begun] == [
        (0, 0, 1),
        (1, 6, 1),
    ]
    assert steps(run) == [*range(1, 16)]
    table = TrainingRun(run).metrics()
    assert table["attempt"].tolist() == [0] * 6 + [1] * 9
    assert len(events(run, "model")) == 2  # once per process, though `test` begins with it too


@pytest.mark.filterwarnings("ignore")
def test_evaluating_alone_begins_no_attempt_and_keeps_the_history(tmp_path):
    run = tmp_path / "run"
    trainer(CurifactoryLogger(run)).fit(Net(), DATA)
    before = steps(run)
    trainer(CurifactoryLogger(run)).test(Net(), DATA, verbose=False)
    trainer(CurifactoryLogger(run)).test(Net(), DATA, verbose=False)
    assert steps(run) == before
    assert len(events(run, "attempt")) == 1
    assert sum("val/loss" in e["metrics"] for e in events(run, "metric")) == 2


@pytest.mark.filterwarnings("ignore")
def test_a_periodic_checkpoint_of_anybodys_trainer_is_in_the_journal(tmp_path):
    run = tmp_path / "run"
    policy = CheckpointParams(every_n_steps=4, every_n_epochs=None)
    saves = PeriodicCheckpoint(run / "checkpoints", policy)
    fit = trainer(CurifactoryLogger(run), callbacks=[saves], enable_checkpointing=False)
    fit.fit(Net(), DATA)
    assert [e["step"] for e in events(run, "checkpoint")] == [4, 8, 10]
    assert [each.step for each in TrainingRun(run).checkpoints()] == [4, 8, 10]


def test_it_needs_no_trainer(tmp_path):
    @dataclass
    class Optimizer:
        lr: float = 0.1

    logger = CurifactoryLogger(tmp_path)
    logger.log_hyperparams(Namespace(seed=1, optimizer=Optimizer(), where=tmp_path, odd={1}))
    logger.log_hyperparams({"seed": torch.tensor(2), "function": print, "big": float("inf")})
    for step in range(3):
        logger.log_metrics({"loss": 1.0 / (step + 1), "epoch": step // 2}, step=step)
    logger.log_graph(torch.nn.LazyLinear(3))
    logger.finalize("success")
    assert hyperparameters(events(tmp_path)) == {
        "seed": 2,
        "optimizer": {"lr": 0.1},
        "where": str(tmp_path),
        "odd": [1],
        "function": str(print),
        "big": "Infinity",
    }
    assert TrainingRun(tmp_path).metrics()["epoch"].tolist() == [0, 0, 1]
    assert model_summary(events(tmp_path))["parameters"] == 0
    copy = pickle.loads(pickle.dumps(logger))
    copy.log_metrics({"loss": 0.1}, step=3)
    copy.finalize("success")
    assert TrainingRun(tmp_path).metrics()["loss"].tolist() == [1.0, 0.5, 1 / 3, 0.1]


SCRIPT = """
    import logging, os, sys, warnings
    warnings.simplefilter("ignore")
    import torch
    from lightning.pytorch import LightningModule, Trainer
    from torch.utils.data import DataLoader, TensorDataset
    from curitorch.external import background_journal
    from curitorch.external.curifactory_logger import CurifactoryLogger

    background_journal.PATIENCE = float(os.environ["PATIENCE"])

    class Net(LightningModule):
        def __init__(self, width=2):
            super().__init__()
            self.save_hyperparameters()
            self.layer = torch.nn.Linear(width, 1)

        def training_step(self, batch, batch_idx):
            loss = torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])
            self.log("train/loss", loss, sync_dist=True)
            for logger in self.loggers:  # on every rank
                logger.log_metrics({"rank": self.global_rank}, step=self.global_step)
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    x = torch.arange(80.0).reshape(40, 2) / 80
    data = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), 4)
    options = dict(accelerator="cpu", enable_progress_bar=False, enable_model_summary=False,
                   log_every_n_steps=1, enable_checkpointing=False, max_epochs=1)
"""


def script(folder, text, *, ranks=1, patience=100.0, **environment):
    """Run a script that waits at its end, so many seconds at most, until all is in the journal."""
    path = folder / "train.py"
    path.write_text(textwrap.dedent(SCRIPT) + textwrap.dedent(text))
    launch = ["-m", "torch.distributed.run", f"--nproc-per-node={ranks}", "--standalone"]
    return subprocess.run(
        [sys.executable, *(launch if ranks > 1 else []), str(path)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PATIENCE": str(patience), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_on_two_ranks_each_may_call_it_and_rank_0_writes(tmp_path):
    text = """
        logger = CurifactoryLogger("run")
        logger.log_hyperparams({"seed": 1})
        trainer = Trainer(logger=logger, devices=2, strategy="ddp", **options)
        trainer.fit(Net(), data)
        trainer.save_checkpoint("run/both.ckpt")
        if trainer.is_global_zero:
            print("LOST", logger.lost)
    """
    done = script(tmp_path, text, ranks=2)
    assert done.returncode == 0, done.stderr
    assert "LOST 0" in done.stdout
    run = tmp_path / "run"
    assert steps(run) == [1, 2, 3, 4, 5]
    assert [e["world_size"] for e in events(run, "attempt")] == [2]
    assert [e["metrics"]["rank"] for e in events(run, "metric") if "rank" in e["metrics"]] == [
        0
    ] * 5
    assert [e["file"] for e in events(run, "checkpoint")] == ["both.ckpt"]
    lines = (run / "journal.jsonl").read_text().splitlines()
    assert all(json.loads(line) for line in lines)


@pytest.mark.slow
def test_processes_that_lightning_spawns_write_as_well(tmp_path):
    text = """
        if __name__ == "__main__":
            logger = CurifactoryLogger("run")
            logger.log_hyperparams({"seed": 1})
            for strategy in ("ddp_spawn", "ddp_fork"):
                Trainer(logger=logger, devices=2, strategy=strategy, **options).fit(Net(), data)
    """
    done = script(tmp_path, text)
    assert done.returncode == 0, done.stderr
    assert [e["resume_step"] for e in events(tmp_path / "run", "attempt")] == [0, 0]
    assert steps(tmp_path / "run") == [1, 2, 3, 4, 5]  # of the second one


LIMIT = """
    import resource, signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    sys.dont_write_bytecode = True  # Python 3.11 would leave torn files where there is no room

    def room(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
"""


def test_a_full_disk_ends_no_training_and_is_said_once(tmp_path):
    done = script(
        tmp_path,
        textwrap.dedent(LIMIT)
        + textwrap.dedent("""
            room(1500)  # bytes of a file
            trainer = Trainer(logger=CurifactoryLogger("run"), **options)
            trainer.fit(Net(), data)
            print("STEPS", trainer.global_step)
        """),
        patience=1.0,  # there never is more room
    )
    assert done.returncode == 0, done.stderr
    assert "STEPS 10" in done.stdout
    assert done.stderr.count("cannot be written") == 1
    assert "Training goes on." in done.stderr
    assert done.stderr.count("lines of the journal") == 1  # at the end, how many
    assert 1 <= len(steps(tmp_path / "run")) < 10


def test_what_found_no_room_is_counted_and_the_journal_goes_on_behind_it(tmp_path):
    done = script(
        tmp_path,
        textwrap.dedent(LIMIT)
        + textwrap.dedent("""
            import threading, time
            said = threading.Event()
            logging.getLogger("curitorch").addFilter(lambda record: said.set() or True)
            logger = CurifactoryLogger("run")
            room(1500)
            logger.log_metrics({"text": "x" * 2000}, step=0)
            assert said.wait(60)  # that it cannot be written
            for step in range(30):
                logger.log_metrics({"text": "x" * 1_000_000}, step=step)
            room(resource.RLIM_INFINITY)
            before = -1
            while logger.lost != before:  # until what waits is written, there is no room for more
                before = logger.lost
                logger.log_metrics({"loss": 0.5}, step=30)
                time.sleep(0.2)
            logger.finalize("success")
            print("LOST", logger.lost)
        """),
    )
    assert done.returncode == 0, done.stderr
    lost = int(done.stdout.split("LOST")[1])
    assert lost > 0
    assert sum(each["lost"] for each in events(tmp_path / "run", "gap")) == lost
    assert TrainingRun(tmp_path / "run").metrics()["loss"].dropna().tolist() == [0.5]
    assert done.stderr.count("cannot be written") == 1


@pytest.mark.slow
def test_a_run_directory_that_cannot_be_made_ends_no_training_either(tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = script(
        tmp_path,
        """
        trainer = Trainer(logger=CurifactoryLogger("file/run"), **options)
        trainer.fit(Net(), data)
        print("STEPS", trainer.global_step)
        """,
        patience=1.0,
    )
    assert "STEPS 10" in done.stdout, done.stderr
    assert done.stderr.count("cannot be written") == 1


JOB = """
    import click
    from curitorch.external.open_job import open_job
    from pathlib import Path

    with open_job(run_dir=Path("run")) as job:
        logger = CurifactoryLogger("run")
        trainer = job.trainer(logger=logger, max_epochs=1, log_every_n_steps=1, accelerator="cpu",
                              enable_model_summary=False)
        assert trainer.loggers == [logger]
        job.fit(trainer, Net(), data)
"""


def test_a_jobs_trainer_has_one_and_a_users_own_of_that_run_is_it(tmp_path):
    done = script(tmp_path, JOB)
    assert done.returncode == 0, done.stderr
    run = TrainingRun(tmp_path / "run")
    assert run.is_complete
    kinds = [each["event"] for each in run.events()]
    assert kinds.count("attempt") == kinds.count("hyperparameters") == kinds.count("model") == 1
    assert "end" not in kinds  # the job says how it ended
    assert steps(run.path) == [*range(1, 11)]
    assert sum("train/loss" in e["metrics"] for e in events(run.path, "metric")) == 10


@pytest.mark.parametrize("with_sdk", [False, True])
def test_in_a_stages_process_it_writes_to_the_stages_run(tmp_path, with_sdk):
    done = script(
        tmp_path,
        f"""
        from curitorch.external.sdk import LightningCallback
        logger = CurifactoryLogger()
        logger.log_hyperparams({{"seed": 1}})
        callbacks = [LightningCallback()] if {with_sdk} else []
        Trainer(logger=logger, callbacks=callbacks, **options).fit(Net(), data)
        """,
        CURITORCH_RUN_DIR=str(tmp_path / "stages run"),
        CURITORCH_ATTEMPT="3",
    )
    assert done.returncode == 0, done.stderr
    run = tmp_path / "stages run"
    assert [e["attempt"] for e in events(run, "attempt")] == [3]
    assert steps(run) == [*range(1, 11)]
    losses = [e["step"] for e in events(run, "metric") if "train/loss" in e["metrics"]]
    assert losses == [*range(1, 11)]  # once, whoever reports it
    assert hyperparameters(events(run)) == {"seed": 1, "width": 2}
    assert model_summary(events(run))["parameters"] == 3
    assert len(events(run, "complete")) == with_sdk
