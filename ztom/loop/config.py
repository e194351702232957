"""What starts a run of the loop, and what it may do."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class LoopConfig(BaseModel):
    """The rules of a loop.

    Attributes:
        name: Name of the loop.
        cadence: Time after a run's end at which another one is due; None for none.
        signals: Whether an alarm of the monitor starts a run.
        changes: Whether a changed error function or suite starts one.
        cool_down: Time after a run's end in which alarms and changes start none.
        runs_a_month: Number of runs that may start within 30 days.
        train: Whether an adapter is trained where a re-blend does not pass.
        approve: ``human`` waits for a person before it ships.
        approval_days: Days after which a run that nobody has approved ends without shipping.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field(min_length=1, max_length=100)
    cadence: timedelta | None = Field(default=None, gt=timedelta(0))
    signals: bool = True
    changes: bool = True
    cool_down: timedelta = Field(default=timedelta(days=7), ge=timedelta(0))
    runs_a_month: int = Field(default=4, ge=1)
    train: bool = True
    approve: Literal["nobody", "human"] = "nobody"
    approval_days: int = Field(default=7, ge=1)
