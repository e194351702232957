"""What a monitor watches, and how seldom it may be wrong."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from ztom.io.problems import check_model
from ztom.io.yaml import read_yaml

Alpha = Annotated[float, Field(gt=0.0, lt=0.5, allow_inf_nan=False)]


class _MonitorPart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class QualityConfig(_MonitorPart):
    """The share of wrong answers among labels that were drawn at random.

    Attributes:
        method: ``cusum`` alarms early; ``e_process`` may be looked at after every label, and is
            later.
        rise: Rise of the share of wrong answers that is worth an alarm; of ``cusum``.
        alpha: Chance of a false alarm within the horizon.
        labels: Number of labels expected a window, for what is said of the monitor beforehand.
        decay: Rise of the share of wrong answers a window that delays are told for.
    """

    method: Literal["cusum", "e_process"] = "cusum"
    rise: float = Field(default=0.05, gt=0.0, lt=1.0)
    alpha: Alpha = 0.05
    labels: int = Field(default=100, ge=1)
    decay: float = Field(default=0.01, gt=0.0, lt=1.0)


class InputsConfig(_MonitorPart):
    """Whether requests are what they were: meanings, lengths, languages, categories, shapes.

    Attributes:
        alpha: Chance of any false alarm of any of these tests within the horizon.
        most: Number of texts that are compared at most, of the reference and of the window; drawn
            by the seed.
        fewest: Number of requests that a window needs to be looked at.
        rhythm: Number of windows after which traffic repeats: 7 compares a day with the same
            weekday. The reference has to hold windows of each kind.
        languages: Whether languages are told apart; needs the extra ``languages``.
        examples: Number of example texts of each cluster that grew.
    """

    alpha: Alpha = 0.05
    most: int = Field(default=1000, ge=50, le=5000)
    fewest: int = Field(default=50, ge=20)
    rhythm: int = Field(default=1, ge=1, le=366)
    languages: bool = False
    examples: int = Field(default=3, ge=1, le=20)


class EffortConfig(_MonitorPart):
    """Tokens, seconds and cost a request.

    Attributes:
        alpha: Chance of any false alarm within the horizon.
        increase: Smallest rise of the median that is worth an alarm, as a share of it.
    """

    alpha: Alpha = 0.05
    increase: float = Field(default=0.1, ge=0.0)


class DisagreementConfig(_MonitorPart):
    """How often another version answers otherwise.

    Attributes:
        alpha: Chance, at any time, of a false alarm.
        floor: Share of requests that the same model answers otherwise when asked again.
        margin: Disagreement beyond the floor that is no alarm.
    """

    alpha: Alpha = 0.05
    floor: float = Field(default=0.0, ge=0.0, lt=1.0)
    margin: float = Field(default=0.1, ge=0.0, lt=1.0)


class MonitorConfig(_MonitorPart):
    """A monitor.

    Attributes:
        name: Name of the monitor.
        start: First moment of window 0. What comes before is the reference, unless that is given
            apart.
        length: Length of a window: ISO 8601 (``P7D``) or ``7 00:00:00``.
        horizon: Number of windows that the chances of false alarms are for.
        quality: The labelled answers.
        inputs: The requests.
        effort: What requests take.
        disagreement: Answers of two versions.
        seed: Seed of everything that is drawn.
    """

    name: str = Field(default="monitor", min_length=1, max_length=100)
    start: AwareDatetime
    length: timedelta = Field(default=timedelta(days=7), gt=timedelta(0))
    horizon: int = Field(default=24, ge=1, le=1000)
    quality: QualityConfig | None = QualityConfig()
    inputs: InputsConfig | None = InputsConfig()
    effort: EffortConfig | None = EffortConfig()
    disagreement: DisagreementConfig | None = DisagreementConfig()
    seed: int = Field(default=0, ge=0)


def read_monitor(path: Path) -> MonitorConfig:
    """The monitor of a YAML file.

    Args:
        path: Path of the file.

    Raises:
        ConfigError: The file cannot be read or is no monitor; names each problem.
    """
    return check_model(
        MonitorConfig, read_yaml(path, json_only=False), wrong=f"{path} is no monitor"
    )
