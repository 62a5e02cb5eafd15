"""The SDK for Hugging Face's Trainer: one callback reports steps and logs and uploads checkpoints.

Trainer(…, callbacks=[TransformersCallback()])
"""

from pathlib import Path
from typing import Any

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'TransformersCallback needs transformers: pip install "curitorch[transformers]".',
        name=error.name,
    ) from error

from . import api
from .session import Session


class TransformersCallback(TrainerCallback):
    """Reports to whoever launched this process, or locally.

    A step is an optimizer step. What the Trainer logs is reported, every checkpoint that it saves
    is uploaded as a folder. When all ranks are asked to save, they do after the same step, and
    training ends; resume with `get_last_checkpoint(CKPT_DIR)`.
    """

    def __init__(self) -> None:
        self._session: Session | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin the session, unless the script did; the Trainer knows its steps by now."""
        if api.current() is None:
            api.init(state.max_steps, processed_steps=state.global_step)
        session = self._session = api.current()
        if session is not None:
            session.begin_at(state.global_step)
            session.reporter.plan(state.max_steps, int(state.num_train_epochs), None)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin a step."""
        if self._session is not None:
            self._session.start_step()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End the step, and let the Trainer save and end if all ranks are asked to."""
        if self._session is None:
            return
        self._session.epoch = int(state.epoch or 0)
        self._session.end_step(to=state.global_step)
        if self._session.is_emergency_save():
            control.should_save = True
            control.should_training_stop = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Report what the Trainer logs."""
        if self._session is not None and logs:
            values = {name: value for name, value in logs.items() if name != "epoch"}
            self._session.metric(values, step=state.global_step, epoch=int(state.epoch or 0))

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Upload the checkpoint that the Trainer saved, the first of a step."""
        if self._session is not None and not self._session.has_uploaded:
            folder = Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"
            self._session.upload_checkpoint(folder)
