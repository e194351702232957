from __future__ import annotations

import json

import pytest
from search_results import make_proof, make_result

from ztom.errors import SearchError
from ztom.search.result import UNKNOWN, read_result


def test_a_result_is_read_as_it_was_written() -> None:
    result = make_result(proof=make_proof())
    content = json.loads(result.model_dump_json())
    assert read_result(content, source="result.json") == result


def test_the_decision_of_the_proof_is_the_verdict_in_json() -> None:
    """It is what ``result.json`` has called it from the first."""
    proof = make_proof()
    content = make_result(proof=proof).model_dump(mode="json")
    assert content["proof"]["verdict"] == proof.decision.model_dump(mode="json")
    assert "decision" not in content["proof"]
    assert '"verdict"' in make_result(proof=proof).model_dump_json()


def test_the_first_results_are_read() -> None:
    """They did not name the error function, the sampler and the dtype, and had no gate."""
    content = json.loads(make_result(proof=make_proof()).model_dump_json())
    for key in ("error", "sampler", "dtype"):
        del content[key]
    del content["proof"]["gate"]
    result = read_result(content, source="result.json")
    assert (result.error, result.sampler, result.dtype) == ((), UNKNOWN, UNKNOWN)
    assert result.proof is not None
    assert result.proof.holds


def test_what_is_no_result_is_refused_by_name() -> None:
    content = json.loads(make_result().model_dump_json())
    del content["trials"]
    with pytest.raises(SearchError, match=r"runs/result.json cannot be read: .*trials, wings"):
        read_result({**content, "wings": 2}, source="runs/result.json")
