"""Which trackers a search reports to, and whether they can be reached before an engine starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ztom.errors import ConfigError
from ztom.extras import require_extra


class TrackerName(StrEnum):
    """The trackers that there are."""

    MLFLOW = "mlflow"
    OPTUNA = "optuna"
    TENSORBOARD = "tensorboard"
    WANDB = "wandb"


#: Module and extra that a tracker needs; Optuna is there anyhow.
_NEEDS = {
    TrackerName.MLFLOW: ("mlflow", "mlflow"),
    TrackerName.TENSORBOARD: ("tensorboardX", "tensorboard"),
    TrackerName.WANDB: ("wandb", "wandb"),
}
#: Values of WANDB_MODE with which nothing is sent, and no key is needed.
_WANDB_SILENT = {"offline", "disabled", "dryrun"}


class TrackerConfig(BaseModel):
    """One tracker.

    Attributes:
        name: Name of the tracker.
        address: Tracking server or store of MLflow, storage of Optuna (``sqlite:///study.db``),
            folder of TensorBoard; in the output folder when None. W&B has its own variables.
        project: Experiment of MLflow, project of W&B; the search's name, or ``ztom``, when None.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: TrackerName
    address: str | None = Field(default=None, min_length=1)
    project: str | None = Field(default=None, min_length=1, max_length=200)

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, data: Any) -> Any:
        """A name alone stands for the tracker with its defaults."""
        return {"name": data} if isinstance(data, str) else data


def needs_folder(tracker: TrackerConfig) -> bool:
    """Whether a tracker writes files into the search's output folder."""
    if tracker.address is not None or tracker.name is TrackerName.WANDB:
        return False
    return tracker.name is not TrackerName.MLFLOW or not os.environ.get("MLFLOW_TRACKING_URI")


def require_trackers(trackers: Sequence[TrackerConfig]) -> None:
    """Look whether what the trackers need is there.

    Raises:
        ConfigError: A package or a key is missing; it says how to have it.
    """
    for tracker in trackers:
        if tracker.name in _NEEDS:
            module, extra = _NEEDS[tracker.name]
            require_extra(module, extra=extra, purpose=f"the tracker {tracker.name}")
        if tracker.name is TrackerName.WANDB:
            _require_wandb_key()


def _require_wandb_key() -> None:
    if os.environ.get("WANDB_MODE") in _WANDB_SILENT or os.environ.get("WANDB_API_KEY"):
        return
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    if not netrc.is_file():
        raise ConfigError(
            "the tracker wandb has no key",
            fix="Set WANDB_API_KEY, run wandb login, or keep it here with WANDB_MODE=offline.",
        )
