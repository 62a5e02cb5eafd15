"""What configure_optimizers may return, and when schedulers are stepped; wrong ones say what to do.

The order of steps beside everything else is compared with Lightning's Trainer in test_traces.
"""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, TensorDataset

from curitorch.external.adapter import LeanTrainer
from curitorch.external.exact.exact_data import exact_data


class Net(LightningModule):
    """Its optimizers are what a function of it returns."""

    def __init__(self, configure, manual=False):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.other = torch.nn.Linear(2, 1), torch.nn.Linear(1, 1)
        self.configure, self.automatic_optimization = configure, not manual
        self.rates = []

    def training_step(self, batch, batch_idx):
        loss = self.other(self.layer(batch[0])).pow(2).mean()
        self.log("loss", loss)
        if not self.automatic_optimization:
            optimizers = self.optimizers()
            optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
            for optimizer in optimizers:
                optimizer.zero_grad()
            self.manual_backward(loss)
            for optimizer in optimizers:
                optimizer.step()
        groups = [g for each in self.trainer.optimizers for g in each.param_groups]
        self.rates.append([group.get("lr") for group in groups])
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.other(self.layer(batch[0])).pow(2).mean())

    def configure_optimizers(self):
        return self.configure(self)


def loader():
    data = torch.randn(20, 2, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(data), 4)


def lean(net, **options):
    trainer = LeanTrainer(accelerator="cpu", **{"max_epochs": 3, **options})
    trainer.fit(net, loader(), loader())
    return trainer


def sgd(net, rate=0.1):
    return SGD(net.parameters(), rate)


def with_scheduler(make, **settings):
    def configure(net):
        optimizer = sgd(net)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": make(optimizer), **settings},
        }

    return configure


def plateau(optimizer):
    return ReduceLROnPlateau(optimizer, patience=0, threshold=0.9, factor=0.5)


def by_lists(net):
    optimizer = sgd(net)
    return [optimizer], [StepLR(optimizer, 1, 0.5)]


def plateau_beside(net):
    optimizer = sgd(net)
    return {"optimizer": optimizer, "lr_scheduler": plateau(optimizer), "monitor": "loss"}


def two_schedulers(net):
    optimizer = sgd(net)
    by_step = {"scheduler": LambdaLR(optimizer, lambda step: 0.9**step), "interval": "step"}
    return [optimizer], [by_step, StepLR(optimizer, 2, 0.5)]


FORMS = {
    "an optimizer": sgd,
    "a list": lambda net: [sgd(net)],
    "a tuple": lambda net: (sgd(net),),
    "a dictionary": lambda net: {"optimizer": sgd(net)},
    "a list of a dictionary": lambda net: [{"optimizer": sgd(net)}],
    "two lists": by_lists,
    "two schedulers": two_schedulers,
    "by epoch": with_scheduler(lambda o: StepLR(o, 1, 0.5)),
    "by step": with_scheduler(lambda o: StepLR(o, 1, 0.9), interval="step"),
    "every third step": with_scheduler(lambda o: StepLR(o, 1, 0.9), interval="step", frequency=3),
    "every other epoch": with_scheduler(lambda o: StepLR(o, 1, 0.9), frequency=2),
    "one cycle": with_scheduler(lambda o: OneCycleLR(o, 0.2, total_steps=20), interval="step"),
    "plateau": with_scheduler(plateau, monitor="val_loss"),
    "plateau beside": plateau_beside,
    "plateau by step": with_scheduler(plateau, monitor="loss", interval="step"),
    "nothing": lambda net: None,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_rates_and_weights_of_lightnings_trainer(form):
    ours, theirs = Net(FORMS[form]), Net(FORMS[form])
    lean(ours)
    trainer = Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(theirs, exact_data((loader(), loader())))
    assert ours.rates == theirs.rates
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))


def test_several_optimizers_are_for_manual_optimization():
    def both(net):
        return [SGD(net.layer.parameters(), 0.1), Adam(net.other.parameters(), 0.2)]

    net = Net(both, manual=True)
    trainer = lean(net)
    assert trainer.global_step == 30  # each step of each optimizer
    assert net.rates[0] == [0.1, 0.2]
    with pytest.raises(RuntimeError, match="automatic_optimization = False"):
        lean(Net(both))


def test_an_optimizer_may_evaluate_the_loss_several_times():
    def configure(net):
        return torch.optim.LBFGS(net.parameters(), max_iter=3)

    net = Net(configure)
    lean(net, max_epochs=1)
    assert len(net.rates) > 5


WRONG = {
    "another scheduler's optimizer": (
        lambda net: ([sgd(net)], [StepLR(sgd(net), 1)]),
        "did not return",
    ),
    "a plateau without a monitor": (with_scheduler(plateau), '"monitor": "val_loss"'),
    "a wrong interval": (
        with_scheduler(lambda o: StepLR(o, 1), interval="batch"),
        "\"interval\" is 'batch'",
    ),
    "no scheduler": (
        lambda net: {"optimizer": sgd(net), "lr_scheduler": {"interval": "step"}},
        'has no "scheduler"',
    ),
    "something else": (lambda net: "sgd", "returned 'sgd'. Return an optimizer"),
    "a metric that is not logged": (with_scheduler(plateau, monitor="acc"), "'acc'"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_says_what_to_do(what):
    configure, sentence = WRONG[what]
    with pytest.raises(MisconfigurationException) as error:
        lean(Net(configure))
    assert sentence in str(error.value)


def test_a_missing_metric_is_only_said_where_the_scheduler_is_not_strict():
    with pytest.warns(RuntimeWarning, match="It is not stepped"):
        lean(Net(with_scheduler(plateau, monitor="acc", strict=False)))


def test_a_scheduler_of_a_users_own_is_stepped_by_the_users_hook():
    class Own:
        def __init__(self, optimizer):
            self.optimizer, self.steps = optimizer, 0

        def state_dict(self):
            return {"steps": self.steps}

        def load_state_dict(self, state):
            self.steps = state["steps"]

    class Stepping(Net):
        def lr_scheduler_step(self, scheduler, metric):
            scheduler.steps += 1

    net = Stepping(with_scheduler(Own))
    trainer = lean(net)
    assert trainer.last_fit.trainer.lr_scheduler_configs[0].scheduler.steps == 3
    with pytest.raises(MisconfigurationException, match="Override lr_scheduler_step"):
        lean(Net(with_scheduler(Own)))


@pytest.mark.parametrize("returned", ["text", {"no": "loss"}])
def test_a_step_that_returns_no_loss_says_what_is_expected(returned):
    class Wrong(Net):
        def training_step(self, batch, batch_idx):
            return returned

    with pytest.raises(MisconfigurationException, match="expected a tensor, a dictionary"):
        lean(Wrong(sgd))


def test_an_optimizer_step_that_forgets_its_closure_is_refused():
    class Forgetful(Net):
        def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure):
            pass

    with pytest.raises(MisconfigurationException, match="did not call its closure"):
        lean(Forgetful(sgd))
