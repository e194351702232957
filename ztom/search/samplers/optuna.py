"""Optuna's samplers as ask/tell, kept in memory: the ledger is what lasts."""

from __future__ import annotations

import importlib

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import Trial, TrialState, create_trial

from ztom.extras import require_extra
from ztom.search.samplers.threads import one_thread
from ztom.search.space import Factors, SearchSpace

#: These read constraints; the others get a penalty instead.
_CONSTRAINED = ("optuna_gp", "tpe")


class OptunaSampler:
    """GP, TPE, CMA-ES and random search.

    Args:
        name: ``optuna_gp``, ``tpe``, ``cmaes`` or ``random``.
        space: Bounds of the factors.
        seed: Everything random is drawn from it.
    """

    sequential = False

    def __init__(self, name: str, space: SearchSpace, *, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._name = name
        self._space = space
        self._keys = tuple(f"factor_{i:04d}" for i in range(space.dimensions))
        self._distributions: dict[str, BaseDistribution] = {
            key: FloatDistribution(low, high)
            for key, low, high in zip(self._keys, space.lower, space.upper, strict=True)
        }
        self._study = optuna.create_study(direction="minimize", sampler=_sampler(name, seed))
        self._asked: dict[int, Trial] = {}
        self._worst: float | None = None

    def warm_up(self) -> None:
        """Optuna imports torch, which takes seconds, when a Gaussian process is first fitted."""
        if self._name == "optuna_gp":
            importlib.import_module("torch")

    def ask(self, number: int) -> Factors:
        """Optuna's next point."""
        with one_thread():
            trial = self._study.ask(self._distributions)
        self._asked[number] = trial
        return tuple(float(trial.params[key]) for key in self._keys)

    def tell(
        self,
        number: int,
        factors: Factors,
        *,
        error: float | None,
        violations: tuple[float, ...],
    ) -> None:
        """Complete the trial that was asked for, or add the point as one of its own.

        A failed trial counts as the worst error so far: left out, the same place would be proposed
        again and again.
        """
        trial = self._asked.pop(number, None)
        params = dict(zip(self._keys, factors, strict=True))
        value = self._value(error, violations)
        if trial is not None and (value is None or trial.params != params):
            self._study.tell(trial, state=TrialState.FAIL)
            trial = None
        if value is None or not self._space.contains(factors):
            return
        constraints = {}
        if self._name in _CONSTRAINED:
            constraints = {f"guardrail_{i:04d}": v for i, v in enumerate(violations)}
        if trial is not None:
            for key, violation in constraints.items():
                trial.set_constraint(key, violation)
            self._study.tell(trial, value)
        else:
            self._study.add_trial(
                create_trial(
                    value=value,
                    params=params,
                    distributions=self._distributions,
                    constraints=constraints or None,
                )
            )

    def close(self) -> None:
        """End nothing: there is no process."""

    def _value(self, error: float | None, violations: tuple[float, ...]) -> float | None:
        """What Optuna is told; an infeasible point ranks last for samplers without constraints."""
        if error is None:
            return self._worst
        self._worst = error if self._worst is None else max(self._worst, error)
        excess = sum(max(violation, 0.0) for violation in violations)
        if excess == 0 or self._name in _CONSTRAINED:
            return error
        return self._worst + excess


def _sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's sampler without start-up points of its own, since the protocol adds them."""
    if name == "optuna_gp":
        return optuna.samplers.GPSampler(
            seed=seed,
            n_startup_trials=1,
            deterministic_objective=False,
            warn_independent_sampling=False,
        )
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=1, multivariate=True)
    if name == "cmaes":
        require_extra("cmaes", extra="cmaes", purpose="the sampler cmaes")
        return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
    return optuna.samplers.RandomSampler(seed=seed)
