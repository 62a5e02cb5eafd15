"""Where a script saves that reports through the SDK, and what of it an attempt begins with."""

import logging
from pathlib import Path

from ..external.attempt import Attempt
from ..external.completion import complete_run
from ..external.journal import Journal, read_journal
from ..external.rundir import TrainingRun
from ..external.sdk.environment import announce
from ..external.sdk.managed import store_of
from ..external.sdk.restore import restore
from ..params import CheckpointParams, LaunchParams


class Saves:
    """The directory of a run that its script saves in: `CKPT_DIR`, unless the launch names another.

    Args:
        run: The run.
        policy: Which store uploads go to, and what it keeps.
        launch: Its environment may name another directory.
    """

    def __init__(self, run: TrainingRun, policy: CheckpointParams, launch: LaunchParams) -> None:
        self.run = run
        self.policy = policy
        self.folder = Path(launch.environment.get("CKPT_DIR", run.path / "saves")).absolute()

    def complete_if_trained(self) -> bool:
        """Complete a run that was killed between its last upload and its end; returns whether.

        Its script would refuse to begin: there is no step left.
        """
        events = read_journal(self.run.layout.journal)
        planned = [e["steps"] for e in events if e["event"] == "plan" and e["steps"]]
        if not planned:
            return False
        with store_of(self.policy, self.run.layout) as store:
            newest = store.newest_valid()
        if newest is None or newest.step < planned[-1]:
            return False
        with Journal(self.run.layout.journal) as journal:
            journal.write("complete", step=newest.step, epoch=None, sdk=True)
        complete_run(self.run.path)
        logging.info("All of its %d steps are trained and saved: complete.", newest.step)
        return True

    def prepare(self, attempt: Attempt) -> dict[str, str]:
        """Restore the newest checkpoint, and return what the script is told in its environment.

        Raises:
            StoreError: The store did not answer.
        """
        aside = self.run.path / "saves-set-aside" / f"attempt-{attempt.number}"
        with store_of(self.policy, self.run.layout) as store:
            step = restore(store, self.folder, aside=aside)
        if aside.exists():
            logging.warning("What was saved after step %d, not whole, is now in '%s'.", step, aside)
        return announce(folder=self.folder, processed=step, policy=self.policy)
