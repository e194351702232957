"""Optuna's storage: a study that ``optuna.load_study`` and optuna-dashboard open.

The search itself does not read it: what a resume goes on with is the ledger.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from ztom.errors import ConfigError
from ztom.search.trackers.protocol import TrackedTrial

#: Number of the trial in the ledger: Optuna's own counts what was stored.
NUMBER = "ztom_trial"


class OptunaTracker:
    """Adds each trial to a study in a storage.

    Args:
        storage: Address, such as ``sqlite:///study.db``.
        study: Name of the study; one of this name is gone on with.
        bounds: Lower and upper bound by the name of the factor.

    Raises:
        ConfigError: The storage cannot be opened.
    """

    def __init__(self, storage: str, study: str, bounds: Mapping[str, tuple[float, float]]) -> None:
        import optuna

        self._bounds = dict(bounds)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what is experimental in Optuna
                self._study: Any = optuna.create_study(
                    storage=storage, study_name=study, direction="minimize", load_if_exists=True
                )
        except Exception as error:
            raise ConfigError(
                "the storage of the tracker optuna cannot be opened",
                got=f"{type(error).__name__}: {error}",
                expected="an address such as sqlite:///study.db",
            ) from error
        trials = self._study.get_trials(deepcopy=False)
        self._stored = {trial.user_attrs.get(NUMBER) for trial in trials}

    def record(self, trial: TrackedTrial) -> None:
        """Add the trial, unless it is there; see `TrialTracker.record`."""
        import optuna

        if trial.number in self._stored:
            return
        self._stored.add(trial.number)
        error = trial.metrics.get("error")
        state = optuna.trial.TrialState.COMPLETE if error is not None else _failed()
        frozen = optuna.trial.create_trial(
            state=state,
            value=error,
            params=dict(trial.factors),
            distributions={name: self._range(name, v) for name, v in trial.factors.items()},
            user_attrs={NUMBER: trial.number, **trial.metrics},
        )
        self._study.add_trial(frozen)

    def close(self) -> None:
        """Close the connections of the storage."""
        remove = getattr(self._study._storage, "remove_session", None)
        if remove is not None:
            remove()

    def _range(self, name: str, value: float) -> Any:
        """The bounds; the trained model's zero may lie outside of them."""
        import optuna

        low, high = self._bounds.get(name, (value, value))
        return optuna.distributions.FloatDistribution(min(low, value), max(high, value))


def _failed() -> Any:
    import optuna

    return optuna.trial.TrialState.FAIL
