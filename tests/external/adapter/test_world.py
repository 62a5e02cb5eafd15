"""exact="world": bitwise the same for 1, 2 and 4 processes, and any change between them."""

import warnings

import pytest
import torch
from torch.utils.data import DataLoader, WeightedRandomSampler
from torchmetrics import CatMetric, MaxMetric, MeanMetric
from torchmetrics.classification import BinaryAccuracy

from curitorch.external.adapter import LeanTrainer
from curitorch.external.refused import Refused
from tests.external.adapter import world_fits as fits
from tests.external.adapter.world_plan import launch


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.timeout(600)
def test_two_processes_train_what_one_does_and_one_goes_on_from_two(tmp_path):
    name, asked = "noise and augmentation", "noise, stopped by the last rank"
    counts = "counts in training"
    plan = [
        {"case": name, "to": "two"},
        {"case": name, "to": "stopped", "steps": 8},
        {"case": asked, "to": "asked to stop"},
        {"case": counts, "to": counts},
    ]
    launch(plan, tmp_path, 2)
    counted = fits.fit(fits.CASES[counts])
    assert 0 < counted["metrics"]["right"] < 1
    assert fits.same(counted, fits.outcome(tmp_path / counts))
    alone = fits.fit(fits.CASES[name])
    assert fits.same(alone, fits.outcome(tmp_path / "two"))
    resumed = fits.fit(fits.CASES[name], source=tmp_path / "stopped")
    assert fits.same(alone, resumed)
    assert 2 <= fits.outcome(tmp_path / "asked to stop")["step"] <= 6  # an epoch's end at last
    assert fits.same(alone, fits.fit(fits.CASES[name], source=tmp_path / "asked to stop"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_then_one_then_four_then_two_processes_end_as_one(tmp_path):
    # What torchmetrics counted before a change of processes is not in the epoch's value.
    left_out = {"stop_at", "counts"}
    names = [n for n, case in fits.CASES.items() if not left_out & case.get("net", {}).keys()]
    alone = {name: fits.fit(fits.CASES[name]) for name in names}
    # Half of the cases are handed over, the others are whole in two or in four processes.
    handed, whole_by_two, whole_by_four = names[::2], names[1::4], names[3::4]
    ends = {name: alone[name]["step"] // 2 for name in names}  # of the first epoch

    def plan(source, target, steps):
        return [
            {
                "case": name,
                "from": source and f"{name} by {source}",
                "to": f"{name} by {target}",
                "steps": steps and steps(name),
            }
            for name in handed
        ]

    def whole(names):
        return [{"case": name, "to": f"{name} whole"} for name in names]

    launch(plan(None, "two", lambda name: 2) + whole(whole_by_two), tmp_path, 2)
    fits.run(plan("two", "one", ends.get), tmp_path)
    by_four = plan("one", "four", lambda name: ends[name] + 1) + whole(whole_by_four)
    launch(by_four, tmp_path, 4)
    launch(plan("four", "two again", None), tmp_path, 2)
    for name in names:
        kind = "by two again" if name in handed else "whole"
        assert fits.same(fits.outcome(tmp_path / f"{name} {kind}"), alone[name]), name


def test_a_grain_as_big_as_the_batch_is_what_one_process_trains_anyway():
    case = {"trainer": {"grain": fits.BATCH}}
    world = fits.fit(case)
    rank = fits.fit({}, exact="rank")
    assert fits.same(world["weights"], rank["weights"])


def test_the_seed_the_batch_and_the_grain_define_the_run():
    plain = fits.fit({})["weights"]
    for other in ({"grain": 4}, {"batch_size": 16}):
        assert not fits.same(plain, fits.fit({"trainer": other})["weights"])


def refused(match, *, net=None, loader=None, **options):
    trainer = LeanTrainer(max_epochs=1, accelerator="cpu", exact="world", **options)
    with pytest.raises(Refused, match=match):
        trainer.fit(net or fits.Net(), fits.data() if loader is None else loader)


class Counting(fits.Net):
    """Changes a buffer in its steps."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def training_step(self, batch, batch_idx):
        self.seen += len(batch[0])
        return super().training_step(batch, batch_idx)


class Leaving(fits.Net):
    def on_train_batch_start(self, batch, batch_idx):
        return -1


class Manual(fits.Net):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False


class Stepping(fits.Net):
    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
        optimizer.step(optimizer_closure)


class Twice(fits.Net):
    def configure_optimizers(self):
        return torch.optim.LBFGS(self.parameters(), max_iter=3)


class Normed(fits.Net):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(3)


class Judging(fits.Net):
    """Its scheduler looks at what is logged in training steps."""

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 0.1)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        scheduled = {"scheduler": plateau, "monitor": "loss_epoch", "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduled}


class Silent(fits.Net):
    def training_step(self, batch, batch_idx):
        return None


class Own(torch.utils.data.Sampler):
    def __iter__(self):
        return iter(range(46))

    def __len__(self):
        return 46


class Counted(fits.Net):
    """Counts in its training steps by a torchmetrics object."""

    def __init__(self, metric, *, monitor="mean", **how):
        super().__init__()
        self.counted, self.monitor, self.how = metric, monitor, how

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.counted.update(*[(batch[1].flatten() > 0).int()] * self.arguments())
        if self.how:
            self.log("counted", self.counted, **self.how)
        return loss

    def arguments(self):
        return 2 if isinstance(self.counted, BinaryAccuracy) else 1

    def configure_optimizers(self):
        found = super().configure_optimizers()
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(found["optimizer"])
        return {**found, "lr_scheduler": {"scheduler": plateau, "monitor": self.monitor}}


def warned(net):
    """Train; return what was said of torchmetrics."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = LeanTrainer(max_epochs=1, accelerator="cpu", exact="world")
        trainer.fit(net, fits.data(), fits.data(20, shuffle=False))
    return [str(each.message) for each in caught if "the value itself" in str(each.message)]


def test_what_torchmetrics_count_in_training_is_said_if_its_order_matters():
    steps, epoch = {"on_step": True, "on_epoch": True}, {"on_step": False, "on_epoch": True}
    for metric in (BinaryAccuracy(), MaxMetric()):
        assert warned(Counted(metric)) == warned(Counted(metric, **epoch)) == []
    assert warned(Counted(BinaryAccuracy(), monitor="counted", **epoch)) == []
    assert warned(Counted(BinaryAccuracy(), monitor="counted_epoch", **steps)) != []
    (of_sums,) = warned(Counted(MeanMetric()))
    assert "The metric 'counted' counts in training steps" in of_sums
    assert "the last bits of its mean_value and weight depend on the number of processes" in of_sums
    (of_lists,) = warned(Counted(CatMetric(), **epoch))
    assert "of its value depend" in of_lists
    (of_steps,) = warned(Counted(BinaryAccuracy(), **steps))
    assert "a step's value is of one process's last grain" in of_steps


def looking_at_a_sum():
    return Counted(MeanMetric(), monitor="counted", on_step=False, on_epoch=True)


def looking_at_a_step():
    return Counted(BinaryAccuracy(), monitor="counted_step", on_step=True, on_epoch=True)


@pytest.mark.parametrize(
    ("match", "given"),
    [
        ("looks at 'counted', a MeanMetric that counts in training", {"net": looking_at_a_sum}),
        ("looks at 'counted_step', a BinaryAccuracy", {"net": looking_at_a_step}),
        ("buffer 'seen' changed in a training step", {"net": Counting}),
        ("on_train_batch_start returned -1", {"net": Leaving}),
        ("automatic_optimization", {"net": Manual}),
        ("optimizer_step.*use exact='rank'", {"net": Stepping}),
        ("LBFGS computes a step's gradients more than once", {"net": Twice}),
        ("looks at 'loss_epoch', which is logged in training_step", {"net": Judging}),
        ("BatchNorm1d keeps running statistics", {"net": Normed}),
        ("1, 2, 4, 8 … grains. Use a grain of 8, 4, 2, 1", {"grain": 3}),
        (
            "a sampler of its own",
            {"loader": lambda: DataLoader(fits.data().dataset, sampler=Own())},
        ),
        ("several loaders", {"loader": lambda: [fits.data(), fits.data()]}),
        ("leave strategy|Leave strategy", {"strategy": "fsdp2"}),
        ("1 samples in global batches|leave a last one of 1", {"loader": lambda: fits.data(41)}),
    ],
    ids=lambda each: each if isinstance(each, str) else None,
)
def test_what_would_depend_on_the_processes_is_refused_with_the_reason(match, given):
    made = {k: v() if k in ("net", "loader") else v for k, v in given.items()}
    refused(f"(?s){match}", **made)


def test_a_step_without_a_loss_is_an_error_in_one_process_too():
    trainer = LeanTrainer(max_epochs=1, accelerator="cpu", exact="world")
    with pytest.raises(RuntimeError, match="returned None"):
        trainer.fit(Silent(), fits.data())


def test_torchs_own_samplers_draw_the_same_for_any_number_of_processes():
    loader = fits.data()
    weighted = WeightedRandomSampler([*range(1, 47)], 40)

    def trained():
        torch.manual_seed(1)
        net = fits.Net()
        trainer = LeanTrainer(max_epochs=1, accelerator="cpu", exact="world", seed=3)
        trainer.fit(net, DataLoader(loader.dataset, 8, sampler=weighted))
        return net.state_dict()

    assert fits.same(trained(), trained())


def test_hooks_around_a_batch_come_once_for_each_and_steps_once_for_each_grain():
    calls = []

    class Watched(fits.Net):
        def on_train_batch_start(self, batch, batch_idx):
            calls.append(("start", batch_idx))

        def training_step(self, batch, batch_idx):
            calls.append(("step", batch_idx, len(batch[0])))
            return super().training_step(batch, batch_idx)

        def on_train_batch_end(self, outputs, batch, batch_idx):
            calls.append(("end", batch_idx))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        LeanTrainer(max_epochs=1, accelerator="cpu", exact="world").fit(Watched(), fits.data(14))
    assert calls == [
        *[("start", 0), *[("step", 0, 2)] * 4, ("end", 0)],
        *[("start", 1), ("step", 1, 2), ("step", 1, 2), ("step", 1, 1), ("step", 1, 1), ("end", 1)],
    ]
