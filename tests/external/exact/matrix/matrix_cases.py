"""The cases of the matrix: in one process, with workers, and in several processes."""

from typing import Any

from lightning.pytorch.callbacks import EarlyStopping, GradientAccumulationScheduler

CASES: dict[str, dict[str, Any]] = {
    "in order": {"trainer": {"max_epochs": 3}},
    "shuffled": {"data": "shuffled"},
    "without the last batch": {"data": "shuffled", "loader": {"drop_last": True}},
    "dropout": {"data": "shuffled", "net": {"dropout": 0.5}},
    "augmentation and noise": {
        "data": "shuffled",
        "net": {"noise": 0.1},
        "loader": {"augmented": True},
    },
    "batch norm": {"data": "shuffled", "net": {"batch_norm": True}},
    "means": {"data": "shuffled", "net": {"means": True}, "trainer": {"max_epochs": 3}},
    "means of every third step": {
        "data": "shuffled",
        "net": {"means": True},
        "trainer": {"log_every_n_steps": 3},
    },
    "metrics": {"data": "shuffled", "net": {"metrics": True}},
    "random hooks": {"data": "shuffled", "net": {"draws": True, "val_noise": True}},
    "accumulation": {
        "data": "shuffled",
        "net": {"dropout": 0.5, "means": True},
        "trainer": {"accumulate_grad_batches": 2},
    },
    "accumulation by a schedule": {
        "data": "shuffled",
        "net": {"means": True},
        "callbacks": lambda: [GradientAccumulationScheduler({0: 1, 1: 3})],
        "trainer": {"max_epochs": 3},
    },
    "plateau by epochs": {
        "net": {"scheduler": "plateau epoch val_loss"},
        "trainer": {"max_epochs": 3},
    },
    "plateau by epochs of a mean of training": {
        "net": {"scheduler": "plateau epoch loss_mean", "means": True}
    },
    "plateau by steps": {
        "net": {"scheduler": "plateau step val_loss_epoch", "means": True},
        "trainer": {"val_check_interval": 1},
    },
    "one cycle and clipping": {
        "net": {"scheduler": "one cycle"},
        "trainer": {"gradient_clip_val": 0.1},
    },
    "early stopping": {
        "trainer": {"max_epochs": 9, "val_check_interval": 2},
        "callbacks": lambda: [EarlyStopping("val_loss", 0.5, patience=2)],
    },
    "early stopping that has to wait": {
        "net": {"means": True},
        "trainer": {
            "val_check_interval": 2,
            "min_epochs": 3,
            "max_epochs": 5,
            "log_every_n_steps": 2,
        },
        "callbacks": lambda: [EarlyStopping("val_loss", 0.9, patience=1)],
    },
    "validation by steps": {
        "net": {"means": True, "metrics": True},
        "trainer": {"val_check_interval": 2},
    },
    "validation by parts of an epoch": {
        "net": {"means": True, "draws": True},
        "trainer": {"val_check_interval": 0.5},
    },
    "validation over epochs": {
        "net": {"means": True},
        "trainer": {"val_check_interval": 3, "check_val_every_n_epoch": None},
    },
    "validation of every second epoch": {
        "net": {"metrics": True},
        "trainer": {"check_val_every_n_epoch": 2, "max_epochs": 4},
    },
    "several validation loaders": {"net": {"means": True, "metrics": True}, "validation": 2},
    "no validation": {"net": {"means": True}, "validation": 0},
    "limits of batches": {
        "data": "shuffled",
        "net": {"means": True},
        "trainer": {"limit_train_batches": 3, "limit_val_batches": 1},
    },
    "a limit of steps": {"net": {"means": True}, "trainer": {"max_epochs": -1, "max_steps": 8}},
    "optimization by hand": {"data": "shuffled", "net": {"manual": True, "means": True}},
    "double precision": {"net": {"means": True}, "trainer": {"precision": "64-true"}},
    "mixed precision": {"net": {"dropout": 0.5}, "trainer": {"precision": "bf16-mixed"}},
    "an epoch left early": {"data": "shuffled", "net": {"leaves_at": 3, "means": True}},
    "steps without a loss": {"data": "shuffled", "net": {"skips": True, "means": True}},
    "loaders made anew": {
        "data": "shuffled",
        "net": {"means": True},
        "trainer": {"reload_dataloaders_every_n_epochs": 2, "max_epochs": 4},
    },
    "samples with replacement": {"data": "replacing"},
    "a subset": {"data": "subset"},
    "weights": {"data": "weighted"},
    "a sampler's generator": {"data": "own generator"},
    "a part for one of two processes": {"data": "distributed"},
    "a sampler with a state": {"data": "sampler", "net": {"means": True}},
    "a batch sampler with a state": {"data": "batch sampler", "loader": {"augmented": True}},
    "a sampler in a batch sampler": {"data": "a batch sampler of torch's"},
    "a limited sampler with a state": {
        "data": "sampler",
        "trainer": {"limit_train_batches": 3, "max_epochs": 3},
    },
    "a sampler without a state": {"data": "stateless sampler", "says": "a sampler of its own"},
    "a stream": {"data": "stream", "net": {"means": True, "dropout": 0.5}},
    "a stream that knows its length": {
        "data": "sized stream",
        "net": {"means": True, "dropout": 0.5},
    },
    "a sampler without a length": {"data": "endless sampler", "net": {"dropout": 0.5}},
    "a limited stream": {"data": "stream", "trainer": {"limit_train_batches": 3, "max_epochs": 3}},
    "a stream without a state": {
        "data": "stateless stream",
        "net": {"dropout": 0.5},
        "says": "an IterableDataset",
    },
    "several loaders": {"data": "several", "loader": {"augmented": True}, "net": {"means": True}},
    "the shorter of two loaders": {"data": "the shorter of two"},
    "a loader with a state": {"data": "loader", "net": {"means": True}},
}
WORKERS: dict[str, dict[str, Any]] = {
    "workers": {
        "data": "shuffled",
        "net": {"dropout": 0.5, "draws": True},
        "loader": {"workers": 2, "augmented": True},
    },
    "persistent workers": {
        "data": "shuffled",
        "net": {"dropout": 0.5, "draws": True, "val_noise": True},
        "loader": {"workers": 2, "augmented": True, "persistent": True},
    },
    "workers and a sampler with a state": {
        "data": "sampler",
        "loader": {"workers": 2, "augmented": True},
    },
    "workers and a batch sampler with a state": {
        "data": "batch sampler",
        "loader": {"workers": 2, "persistent": True, "augmented": True},
    },
    "workers and a sampler without a state": {
        "data": "stateless sampler",
        "loader": {"workers": 2},
        "says": "a sampler of its own",
    },
}
RANKS_CASES: dict[str, dict[str, Any]] = {
    **{
        name: CASES[name]
        for name in (
            *("shuffled", "dropout", "augmentation and noise", "batch norm", "means", "metrics"),
            *("random hooks", "accumulation", "accumulation by a schedule", "plateau by steps"),
            *("plateau by epochs of a mean of training", "early stopping", "validation by steps"),
            *("several validation loaders", "limits of batches", "a limit of steps", "weights"),
            *("optimization by hand", "an epoch left early", "several loaders"),
        )
    },
    "a part for each process": {
        "data": "divided",
        "net": {"means": True},
        "loader": {"augmented": True},
    },
    "a stream for each process": {
        "data": "stream",
        "net": {"means": True},
        "loader": {"augmented": True},
    },
    "workers": WORKERS["workers"],
}
