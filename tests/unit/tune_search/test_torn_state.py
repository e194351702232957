"""What Ray Tune left behind is never read: a search goes on from the ledger. Row 62."""

from __future__ import annotations

from pathlib import Path

import pytest
from search_helpers import make_plan, new_study

from tune_search.replacements import Replacements
from tune_search.searcher import ProtocolSearcher
from ztom.ledger import Ledger, TrialOutcome
from ztom.search.conductor import Conductor
from ztom.search.samplers.build import build_sampler
from ztom.search.samplers.protocol import SamplerConfig


def searcher(ledger: Ledger, study: int) -> ProtocolSearcher:
    plan = make_plan()
    sampler = build_sampler(SamplerConfig(name="random"), plan.space, seed=0)
    conductor = Conductor(plan, ledger, study, sampler=sampler, on_event=lambda event: None)
    engines = Replacements([lambda: None])
    return ProtocolSearcher(
        conductor, slots=1, engines=engines, retries=1, on_report=lambda number, report: None
    )


@pytest.mark.abuse(62)
@pytest.mark.parametrize("state", [b"", b"\x80\x05torn", b"{"])
def test_torn_state_of_tune_changes_nothing(tmp_path: Path, state: bytes) -> None:
    left = tmp_path / "searcher-state-2026.pkl"
    left.write_bytes(state)
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        study = new_study(ledger)
        first = searcher(ledger, study)
        assert isinstance(first.suggest("a"), dict)
        first._conductor.complete(0, TrialOutcome(error=1.0, seconds={"total": 1.0}))
        resumed = searcher(ledger, study)
        resumed.restore(str(left))
        suggestion = resumed.suggest("b")
        assert isinstance(suggestion, dict)
        assert suggestion["number"] == 1, "the one after those of the ledger"
        assert len(ledger.studies.trials(study)) == 2
        first.save(str(tmp_path / "saved"))
    assert not (tmp_path / "saved").exists(), "nothing is kept that could be torn"
