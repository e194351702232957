"""TensorBoard: the error and the factors over the trials, and each trial among the HParams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ztom.search.trackers.protocol import TrackedTrial


class TensorBoardTracker:
    """Writes event files, each point at the number of its trial.

    Ray Tune's own callback writes a run per trial; a trial here is one point, and the curve over
    all of them is what one wants to see.

    Args:
        folder: Where the event files go: ``tensorboard --logdir`` reads it.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboardX import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder), flush_secs=5)
        self._best: float | None = None

    def record(self, trial: TrackedTrial) -> None:
        """Write the trial's numbers; see `TrialTracker.record`."""
        for name, value in trial.metrics.items():
            self._writer.add_scalar(name, value, trial.number)
        for name, value in trial.factors.items():
            self._writer.add_scalar(f"factor/{name}", value, trial.number)
        error = trial.metrics.get("error")
        if error is None:
            return
        self._best = error if self._best is None else min(self._best, error)
        self._writer.add_scalar("best_error", self._best, trial.number)
        name = f"trial-{trial.number:05d}"
        self._writer.add_hparams(dict(trial.factors), {"error": error}, name, trial.number)

    def close(self) -> None:
        """Write what is waiting."""
        self._writer.close()
