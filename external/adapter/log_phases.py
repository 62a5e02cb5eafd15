"""Where a fit is, and what of the logged values there is to show there.

The state of Lightning's logger connector: in which phase, whether in its first batch, which hook
logged last, and what schedulers, loggers and progress bars see. `logged` has the order of calls.
"""

from typing import Any, Literal

from torch import Tensor

from .gathered import Gathered, Shown

Values = dict[str, Tensor]


class LogPhases:
    """See the module.

    Args:
        log_every_n_steps: After so many batches that stepped, a training batch's values are shown;
            0: never.
        has_logger: Whether there is one to show them.

    Attributes:
        hook: The hook that runs, None between hooks; as `self._current_fx_name` in Lightning.
        batches_that_stepped: Training batches after which an optimizer stepped; the loop counts.
        validation_batches: Of each loader, how many were validated since it was made.
        step: With which step the values that were returned last go to the loggers.
    """

    def __init__(self, *, log_every_n_steps: int, has_logger: bool) -> None:
        self.log_every_n_steps, self.has_logger = log_every_n_steps, has_logger
        self.hook: str | None = None
        self.batches_that_stepped = 0
        self.validation_batches: dict[int, int] = {}
        self.step = 0
        self._train, self._validate = Gathered(is_train=True), Gathered(is_train=False)
        self._active = self._train
        self._shown = Shown()
        self._is_pending = False  # a batch is over, and not yet among what is shown
        self._is_sanity = False
        self._outputs: list[Values] = []  # of the loaders that this validation is through with
        self._first: bool | None = None  # None: outside of batches, True: in the first
        self._first_of_train: bool | None = None
        self._last_hook: str | None = None  # that logged
        self._batch: Any = None
        self._samples: int | None = None

    def enter(
        self,
        hook: str | None,
        *,
        batch_idx: int | None = None,
        dataloader_idx: int | None = None,
        batch_size: int | None = None,
    ) -> str | None:
        """Say which hook runs now; returns the one that ran, to be set again after it.

        Setting `hook` itself does the same, faster. The other arguments are those of
        `begin_batch` and need not be given again.
        """
        before, self.hook = self.hook, hook
        if dataloader_idx is not None:
            self._active.dataloader_idx = dataloader_idx
        if batch_size is not None:
            self._samples = batch_size
        return before

    def begin_fit(self) -> None:
        """Forget what an earlier fit has logged."""
        self._train.reset()
        self._active, self._first, self._last_hook = self._train, None, None
        self._shown, self._is_pending = Shown(), False

    def begin_batch(self, batch: Any, dataloader_idx: int | None = None) -> None:
        """Say that a batch begins; before its first hook, after its transfer.

        Args:
            batch: For its number of samples.
            dataloader_idx: Which validation loader it comes from; None if there is but one.
        """
        active = self._active
        if active.dataloader_idx != dataloader_idx:
            if active.dataloader_idx is not None:
                self._end_loader()
            active.dataloader_idx = dataloader_idx
        self._first = self._first is None
        self._batch, self._samples = batch, None

    def after_batch(self, *, stepped: bool = True, should_stop: bool = False) -> Values | None:
        """Say that a batch is over, after its last hook.

        Args:
            stepped: False within an accumulation (manual optimisation always steps).
            should_stop: The training is about to stop: its last values are shown.

        Returns:
            What goes to the loggers now, if anything, with `step`.
        """
        self._batch = self._samples = None
        self._is_pending = True
        active = self._active
        if not active.is_train:
            return None if self._is_sanity else self._after_validation_batch()
        every = self.log_every_n_steps
        if not stepped or every == 0 or not self.has_logger:
            return None
        if (self.batches_that_stepped + 1) % every and not should_stop:
            return None
        self.step = self.batches_that_stepped
        return self._show(on_step=True).logger or None

    def end_batches(self) -> None:
        """Say that the epoch or the validation has no further batch."""
        if self._active.is_train:
            self._show_pending()
        else:
            self._end_loader()
            self._active.dataloader_idx = None
        self._first = None

    def epoch_end(self, phase: Literal["train", "validate"]) -> Values:
        """Return what goes to the loggers, with `step`, after the hook of the epoch's end.

        The values of a training epoch begin anew; those of a validation at `end_validation`.
        """
        values = self._show(on_step=False).logger
        self._last_hook = None
        if phase == "train":
            self.step = self.batches_that_stepped - 1
            self._train.reset()
            return values
        self.step = self.batches_that_stepped
        outputs, self._outputs = self._outputs, []
        for earlier in outputs:
            values = {**earlier, **values}
        return {} if self._is_sanity else values

    def begin_validation(self, *, sanity: bool = False) -> None:
        """Say that a validation begins, before its first hook.

        Args:
            sanity: It is the sanity check: nothing goes to the loggers, and all is forgotten.
        """
        self._show_pending()
        self._first_of_train, self._is_sanity = self._first, sanity
        self._active, self._outputs = self._validate, []

    def end_validation(self) -> None:
        """Say that the hooks of a validation are over, `on_validation_end` included."""
        self._validate.reset()
        self._active, self._first, self._last_hook = self._train, self._first_of_train, None
        if self._is_sanity:
            self._shown, self._is_sanity = Shown(), False

    @property
    def callback_metrics(self) -> Values:
        """As the Trainer's: the newest values, of the epoch where one is over."""
        return self._newest().callback

    @property
    def logged_metrics(self) -> Values:
        """As the Trainer's: what goes or went to the loggers."""
        return self._newest().logger

    @property
    def progress_bar_metrics(self) -> dict[str, float]:
        """As the Trainer's: what was logged with `prog_bar=True`."""
        return {name: value.item() for name, value in self._newest().progress_bar.items()}

    def _after_validation_batch(self) -> Values | None:
        index = self._active.dataloader_idx or 0
        self.step = self.validation_batches.get(index, 0)
        self.validation_batches[index] = self.step + 1
        return self._show(on_step=True).logger or None

    def _end_loader(self) -> None:
        """Keep the values of the loader that is through, before another one begins."""
        self._show_pending()
        self._first = None
        if not self._is_sanity:
            self._outputs.append(self._show(on_step=False).logger)

    def _show(self, *, on_step: bool) -> Shown:
        shown = self._active.show(on_step=on_step)
        self._shown.update(shown)
        self._is_pending = False
        return shown

    def _show_pending(self) -> None:
        if self._is_pending:
            self._show(on_step=True)

    def _newest(self) -> Shown:
        self._show_pending()
        self._show(on_step=self._first is not None)
        return self._shown
