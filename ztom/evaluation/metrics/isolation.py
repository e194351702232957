"""Metrics that run code which may raise, hang or die: the user's function, and the checks.

Each has a process of its own (`ztom.scoring.user_function`) and is asked item by item, so that an
answer that makes it fail costs one item and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from ztom.errors import ScoringError
from ztom.evaluation.metrics.checks import JUDGE, pack
from ztom.evaluation.metrics.protocol import Case, Scored, stimulus_of
from ztom.evaluation.suites.digests import canonical
from ztom.evaluation.suites.suite import MetricName, SuiteConfig
from ztom.scoring.user_function import UserFunction
from ztom.scoring.user_process import Limits
from ztom.settings import Settings
from ztom.stimuli.records import Output

_DEADLINE_S = 60.0
_CHECKS_DEADLINE_S = 20.0
#: So long a function may hang or die, all items together, before the rest is left unscored.
_LOST_LIMIT_S = 300.0


class _Contained:
    """A function in a process of its own, asked item by item, so that one cannot spoil another."""

    def __init__(
        self, target: str, *, deadline_s: float, import_paths: Sequence[str] | None
    ) -> None:
        settings = Settings()
        self._function = UserFunction(
            target,
            deadline_s=deadline_s,
            import_paths=import_paths,
            limits=Limits(network=settings.function_network, reads=settings.function_reads),
            booleans=True,
        )
        self._function.check()
        self._lost_s = 0.0

    def call(self, case: Case, expected: str) -> list[float]:
        """What it says about each of the case's answers.

        Raises:
            ScoringError: It raised, hung, died or said something else than numbers.
        """
        if self._lost_s > _LOST_LIMIT_S:
            raise ScoringError(
                f"not scored: {self._function.name} had hung for {self._lost_s:.0f} s on others"
            )
        began = time.monotonic()
        try:
            scores = self._function.score(
                [stimulus_of(case, expected)] * len(case.answers),
                [Output(text=answer) for answer in case.answers],
            )
        except ScoringError:
            self._lost_s += time.monotonic() - began
            raise
        numbers: list[float] = scores.per_stimulus.tolist()
        return numbers

    def close(self) -> None:
        self._function.close()


class OwnFunction:
    """The user's metric, or the user's check of an answer (pass@1)."""

    def __init__(
        self,
        config: SuiteConfig,
        *,
        import_paths: Sequence[str] | None = None,
        deadline_s: float = _DEADLINE_S,
    ) -> None:
        self._passes = config.metric is MetricName.PASS_AT_1
        self._function = _Contained(
            config.function or "", deadline_s=deadline_s, import_paths=import_paths
        )

    def score(self, cases: Sequence[Case]) -> list[Scored]:
        """Ask the function about each case."""
        return [self._score_one(case) for case in cases]

    def _score_one(self, case: Case) -> Scored:
        target = case.item.target
        text = target if isinstance(target, str) else canonical(target).decode()
        try:
            (value,) = self._function.call(case, text)
        except ScoringError as error:
            return Scored(problem=str(error))
        if self._passes and value not in (0.0, 1.0):
            return Scored(problem=f"the function said {value:g}, not 1 (passed) or 0")
        if not 0.0 <= value <= 1.0:
            return Scored(problem=f"the function said {value:g}, not a number from 0 to 1")
        return Scored(value=value)

    def close(self) -> None:
        """End its process."""
        self._function.close()


class ProbeChecks:
    """Behavioural probes, in a process of their own: a pattern may never come to an end."""

    def __init__(self, config: SuiteConfig, *, deadline_s: float = _CHECKS_DEADLINE_S) -> None:
        self._checks = config.checks
        self._function = _Contained(JUDGE, deadline_s=deadline_s, import_paths=())

    def score(self, cases: Sequence[Case]) -> list[Scored]:
        """The share of each case's answers that pass, and which checks the others failed."""
        return [self._score_one(case) for case in cases]

    def _score_one(self, case: Case) -> Scored:
        try:
            results = self._function.call(case, pack(self._checks, case.item.target))
        except ScoringError as error:
            return Scored(problem=str(error))
        first_failed = [int(number) for number in results]
        kinds = sorted({self._checks[place - 1].kind for place in first_failed if place})
        return Scored(value=first_failed.count(0) / len(first_failed), failed_checks=tuple(kinds))

    def close(self) -> None:
        """End its process."""
        self._function.close()
