"""What every metric of suites has to do, as tests to inherit.

import pytest
from ztom.testing import MetricConformance

class TestMyMetric(MetricConformance):
@pytest.fixture
def metric(self):
metric = MyMetric(...)
yield metric
metric.close()
"""

from __future__ import annotations

from collections.abc import Sequence

from ztom.evaluation.metrics.protocol import Case, Metric
from ztom.evaluation.suites.suite import Item


def _case(number: int, target: object, answer: str) -> Case:
    item = Item(id=f"item {number}", input=f"question {number}", target=target)
    return Case(item=item, prompt=f"question {number}", answers=(answer,))


class MetricConformance:
    """Tests of a fixture ``metric``, an `ztom.evaluation.metrics.protocol.Metric`.

    Attributes:
        cases: Three or more that can be scored; values of some must differ. Override them where the
            targets are no text.
        unscorable: A case that cannot be scored; None where there is none.
    """

    cases: Sequence[Case] = (
        _case(0, "yes", "yes"),
        _case(1, "no", "yes"),
        _case(2, "maybe", "maybe"),
        _case(3, "no", ""),
    )
    unscorable: Case | None = None

    def test_every_case_has_a_value(self, metric: Metric) -> None:
        """Values are from 0 to 1, higher is better; they are in the order of the cases."""
        scores = metric.score(list(self.cases))
        assert len(scores) == len(self.cases)
        values = []
        for scored in scores:
            assert scored.problem is None, scored.problem
            assert scored.value is not None, "neither a value nor a problem"
            assert 0.0 <= scored.value <= 1.0, scored.value
            assert all(isinstance(part, float) for part in scored.parts), scored.parts
            values.append(scored.value)
        assert len(set(values)) > 1, "all values are equal: no case tells any apart"

    def test_it_repeats_itself(self, metric: Metric) -> None:
        """The same answers have the same values."""
        assert metric.score(list(self.cases)) == metric.score(list(self.cases))

    def test_a_case_does_not_depend_on_the_others(self, metric: Metric) -> None:
        """Alone and in another order it is scored alike."""
        together = metric.score(list(self.cases))
        alone = [metric.score([case])[0] for case in self.cases]
        assert alone == together
        assert metric.score(list(reversed(self.cases)))[::-1] == together

    def test_nothing_has_no_values(self, metric: Metric) -> None:
        """A suite of which no answer arrived is scored as well."""
        assert metric.score([]) == []

    def test_what_cannot_be_scored_has_a_problem_and_no_value(self, metric: Metric) -> None:
        """It is never 0 because it is missing, and it costs no other case."""
        if self.unscorable is None:
            return
        scores = metric.score([*self.cases, self.unscorable])
        assert scores[-1].value is None, scores[-1]
        assert scores[-1].problem, "no value and no problem"
        assert scores[:-1] == metric.score(list(self.cases))

    def test_closing_twice_is_harmless(self, metric: Metric) -> None:
        """What was started for it ends."""
        metric.score(list(self.cases[:1]))
        metric.close()
        metric.close()
