"""The callbacks: a step is an optimizer step, and every file that a trainer saves is uploaded."""

import pytest

LIGHTNING = """
    import torch
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint

    class Net(LightningModule):
        def __init__(self, manual=False, direct=None):
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)
            self.automatic_optimization = not manual
            self.direct = direct
        def training_step(self, batch, batch_idx):
            loss = self.layer(batch).pow(2).mean()
            self.log("loss", loss)
            if not self.automatic_optimization:
                for optimizer in self.optimizers():
                    optimizer.zero_grad()
                self.manual_backward(loss)
                for optimizer in self.optimizers():
                    optimizer.step()
            return loss
        def on_train_batch_end(self, outputs, batch, batch_idx):
            if self.direct == self.trainer.global_step:
                self.trainer.save_checkpoint("direct.ckpt")
        def configure_optimizers(self):
            if self.automatic_optimization:
                return torch.optim.SGD(self.parameters(), lr=0.1)
            return [torch.optim.SGD([p], lr=0.1) for p in self.parameters()]

    def fit(net, callbacks=(), **options):
        data = torch.utils.data.DataLoader(torch.ones(24, 2), 2)  # 12 batches
        trainer = Trainer(max_epochs=2, accelerator="cpu", logger=False, log_every_n_steps=1,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir="out",
            callbacks=[pf.LightningCallback(), *callbacks],
            **{"enable_checkpointing": bool(callbacks), **options})
        trainer.fit(net, data)
"""


@pytest.mark.parametrize(
    ("call", "steps", "planned"),
    [
        ("fit(Net())", range(1, 25), 24),
        ("fit(Net(), accumulate_grad_batches=5)", range(1, 7), 6),
        ("fit(Net(manual=True))", range(2, 49, 2), 24),
    ],
    ids=["automatic", "accumulated", "manual with two optimizers"],
)
def test_a_lightning_step_is_an_optimizer_step(scripts, call, steps, planned):
    managed = scripts.managed()
    managed.run(LIGHTNING + "    " + call)
    assert [e["step"] for e in managed.events("step")] == list(steps)
    assert managed.events("step")[-1]["epoch"] == 1
    assert managed.events("plan")[-1]["steps"] == planned
    assert {e["step"] for e in managed.events("metric")} <= set(steps)
    assert all("loss" in e["metrics"] for e in managed.events("metric"))


def test_what_model_checkpoint_saves_and_what_is_saved_directly_is_uploaded_once_a_step(scripts):
    managed = scripts.managed()
    managed.run(
        LIGHTNING
        + """
    fit(Net(direct=5), [ModelCheckpoint("out", every_n_train_steps=8, save_last=True,
                                        save_top_k=-1)])
    """
    )
    assert [(s["step"], *s["details"]["paths"].values()) for s in managed.sidecars()][-1] == (
        24,
        "epoch=1-step=24.ckpt",
    )
    assert [e["step"] for e in managed.events("checkpoint")] == [5, 8, 16, 24]
    assert managed.events()[-1]["event"] == "complete"


def test_lightning_by_itself_logs_locally(scripts):
    _, complaints = scripts.local().run(LIGHTNING + "    fit(Net())")
    [log] = scripts.folder.glob("periflow_trainer_*.log")
    assert len(log.read_text().splitlines()) == 24
    assert complaints.count("runs locally") == 1


TRANSFORMERS = """
    import torch
    from transformers import Trainer, TrainingArguments

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)
        def forward(self, x, labels=None):
            out = self.layer(x)
            return {"loss": (out - labels).pow(2).mean(), "logits": out}

    data = [{"x": torch.ones(2), "labels": torch.ones(1)} for _ in range(32)]
    trainer = Trainer(Net(), TrainingArguments(
        os.environ.get("CKPT_DIR", "out"), num_train_epochs=2, per_device_train_batch_size=4,
        gradient_accumulation_steps=2, logging_steps=1, save_steps=3, report_to=[],
        disable_tqdm=True, use_cpu=True), train_dataset=data,
        callbacks=[pf.TransformersCallback()])
    trainer.train()
"""


def test_a_step_of_hugging_faces_trainer_is_an_optimizer_step_and_its_folders_are_uploaded(scripts):
    managed = scripts.managed()
    managed.run(TRANSFORMERS)
    assert [e["step"] for e in managed.events("step")] == list(range(1, 9))
    plan = managed.events("plan")[-1]
    assert (plan["steps"], plan["epochs"]) == (8, 2)
    assert [e["step"] for e in managed.events("checkpoint")] == [3, 6, 8]
    paths = managed.sidecars()[-1]["details"]["paths"].values()
    assert {"checkpoint-8/trainer_state.json", "checkpoint-8/optimizer.pt"} <= set(paths)
    assert [e["step"] for e in managed.events("metric") if "loss" in e["metrics"]][:8] == list(
        range(1, 9)
    )


def test_without_transformers_the_error_names_the_extra(scripts):
    output, _ = scripts.local().run("""
        sys.modules["transformers"] = None
        try:
            pf.TransformersCallback
        except ModuleNotFoundError as error:
            print(error)
    """)
    assert 'pip install "curitorch[transformers]"' in output
