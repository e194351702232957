"""From a request for a search to its configuration, without a server."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError
from search_results import make_result
from starlette.exceptions import HTTPException

from serve_apps.control_plane.search_answers import answer_of
from serve_apps.control_plane.search_config import (
    data_references,
    inference_options,
    one_hot_width,
    search_config,
    with_classes,
)
from ztom.blending.chain_file import ChainConfig
from ztom.blending.groups import FactorGroups
from ztom.engines.config import EngineConfig
from ztom.errors import ConfigError
from ztom.io.yaml import dump_yaml
from ztom.search.config import SearchConfig
from ztom.search.config_files import dump_config, load_config
from ztom.wire.search_requests import NewSearch, Search
from ztom.wire.searches import SearchFindings

PROJECT = "0" * 32
MINIMAL = {"projectId": PROJECT, "scalingFactorLimit": 0.3, "stimulusPaths": ["/data/a.jsonl"]}
FULL = {
    **MINIMAL,
    "stimulusPaths": ["/data/a.jsonl", "/data/b.jsonl"],
    "expectedOutputPath": "/data/e.csv",
    "holdoutPath": "gs://bucket/h.jsonl",
    "holdoutExpectedOutputPath": "gs://bucket/h",
    "suitePaths": ["/suites/one", "/suites/two"],
    "batchSize": 8,
    "inferenceConfigJson": '{"max_new_tokens": 7, "unheard_of": 1}',
    "detailedOutput": "STORE_AND_RETURN",
    "error": ["rouge_l", {"function": "accuracy", "weight": 0.5}],
    "labels": ["yes", "no"],
    "maxEvaluations": 9,
    "sampler": "cobyla",
    "seed": 4,
    "insist": True,
    "engine": {"name": "torch", "dtype": "float32"},
}


def built(body: dict[str, object], folder: Path, *, checkpoints: int = 3) -> SearchConfig:
    return search_config(
        NewSearch.model_validate(body),
        request_id="the-request",
        chain=ChainConfig(checkpoints=tuple({"reference": f"/c{i}"} for i in range(checkpoints))),
        folder=folder,
        engine=EngineConfig(replicas=2),
        ledger="postgresql://user:password@host/ledger",
    )


def test_what_is_not_said_is_as_in_a_file(tmp_path: Path) -> None:
    config = built(MINIMAL, tmp_path)
    expected = SearchConfig(
        name="the-request",
        chain=config.chain,
        stimuli=tmp_path / "stimuli.jsonl",
        error="sentence_similarity",
        scaling_factor_limit=0.3,
        engine={"replicas": 2},
        output=tmp_path / "run",
        variant={"keep_unproven": True},
        ledger="postgresql://user:password@host/ledger",
    )
    assert config == expected


def test_everything_that_is_said_arrives(tmp_path: Path) -> None:
    config = built(FULL, tmp_path)
    expected = SearchConfig(
        name="the-request",
        chain=config.chain,
        stimuli=tmp_path / "stimuli.jsonl",
        expected_outputs=tmp_path / "expected_outputs.csv",
        holdout=tmp_path / "holdout.jsonl",
        holdout_expected_outputs=tmp_path / "holdout_expected_outputs.txt",
        suites=(tmp_path / "suites" / "0", tmp_path / "suites" / "1"),
        batch_size=8,
        inference_config={"max_new_tokens": 7},
        detailed_output="STORE_AND_RETURN",
        error=["rouge_l", {"function": "accuracy", "weight": 0.5}],
        labels=("yes", "no"),
        scaling_factor_limit=0.3,
        budget={"evaluations": 9},
        sampler="cobyla",
        seed=4,
        insist=True,
        engine={"name": "torch", "dtype": "float32"},
        output=tmp_path / "run",
        variant={"keep_unproven": True},
        ledger="postgresql://user:password@host/ledger",
    )
    assert config == expected


@pytest.mark.parametrize("body", [MINIMAL, FULL])
def test_the_job_reads_what_the_request_became(tmp_path: Path, body: dict[str, object]) -> None:
    config = built(body, tmp_path)
    (tmp_path / "search.yaml").write_text(dump_config(config), encoding="utf-8")
    assert load_config(tmp_path / "search.yaml") == config


def test_the_file_of_a_search_that_was_queued_by_an_earlier_server_is_read(tmp_path: Path) -> None:
    """It was written from a dictionary, with every key and null where nothing was said."""
    content = {
        "name": "the-request",
        "chain": {"checkpoints": [{"reference": "/c0", "tag": "base"}, {"reference": "/c1"}]},
        "stimuli": "/data/stimuli.jsonl",
        "labels": [],
        "error": [{"function": "rouge_l"}],
        "scaling_factor_limit": 0.3,
        "batch_size": None,
        "inference_config": {"temperature": 0.0, "max_new_tokens": 7, "stop": []},
        "detailed_output": False,
        "sampler": "gp",
        "budget": {"evaluations": 9},
        "engine": EngineConfig().model_dump(mode="json"),
        "seed": 4,
        "suites": [],
        "insist": False,
        "output": "/data/run",
        "ledger": "/data/ledger.db",
    }
    (tmp_path / "search.yaml").write_text(dump_yaml(content), encoding="utf-8")
    config = load_config(tmp_path / "search.yaml")
    assert (config.budget.evaluations, config.error[0].function) == (9, "rouge_l")
    assert config.inference_config.max_new_tokens == 7


def test_each_reference_becomes_a_key_of_the_configuration() -> None:
    references = data_references(NewSearch.model_validate(MINIMAL))
    assert {key: data.references for key, data in references.items()} == {
        "stimuli": ("/data/a.jsonl",)
    }
    references = data_references(NewSearch.model_validate(FULL))
    assert references["stimuli"].references == ("/data/a.jsonl", "/data/b.jsonl")
    assert references.keys() <= SearchConfig.model_fields.keys()


def test_the_original_call_may_say_more_than_is_known() -> None:
    request = Search.model_validate({**MINIMAL, "detailedOutput": None, "somethingElse": 1})
    assert request.warnings == ["'somethingElse' is not known and was ignored"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"error": "rouge_x"}, "Did you mean rouge_l?"),
        ({"error": {"function": "exact_match", "source": "labels"}}, "expected text"),
        ({"labels": ["a", "a"]}, "given twice"),
        ({"holdoutExpectedOutputPath": "/h.csv"}, "without holdout"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path: Path, changes, reason) -> None:
    with pytest.raises(ConfigError) as caught:
        built({**MINIMAL, **changes}, tmp_path)
    assert reason in str(caught.value)
    assert str(caught.value).startswith("the search is wrong")


def test_a_sampler_has_to_fit_the_chain(tmp_path: Path) -> None:
    body = {**MINIMAL, "sampler": "cmaes"}
    assert built(body, tmp_path).sampler.name == "cmaes"
    with pytest.raises(ConfigError, match="two factors or more"):
        built(body, tmp_path, checkpoints=2)


@pytest.mark.parametrize(
    "changes",
    [
        {"error": "os:system"},
        {"error": ["rouge_l", "mine.module:score"]},
        {"engine": {"name": "mine.module:engine"}},
        {"sampler": "mine.module:sampler"},
        {"engine": {"name": "torch", "module": "mine:model"}},
        {"inferenceConfigJson": {"max_new_tokens": 0}},
    ],
)
def test_the_callers_code_is_not_run(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(HTTPException) as caught:
        built({**MINIMAL, **changes}, tmp_path)
    assert caught.value.status_code == 422


def test_options_of_generation_that_are_not_known_are_named() -> None:
    options = inference_options({"temperature": 0.5, "wings": 2})
    assert options.generation.temperature == 0.5
    assert options.warnings == ["inferenceConfigJson: 'wings' is not known and was ignored"]


@pytest.mark.parametrize(
    ("sent", "temperature"),
    [
        ({"do_sample": False, "temperature": 0.7}, 0.0),
        ({"do_sample": True}, 1.0),
        ({"do_sample": True, "temperature": 0.7}, 0.7),
        ({"do_sample": None, "temperature": None, "top_k": None}, 0.0),
        ({"temperature": 0.7}, 0.7),
    ],
)
def test_do_sample_is_understood_as_transformers_does(sent, temperature) -> None:
    options = inference_options(sent)
    assert options.generation.temperature == temperature
    assert options.warnings == []


def test_every_option_of_the_contract_counts() -> None:
    sent = {
        "chat_template": "{{ messages[0]['content'] }}",
        "do_sample": True,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "max_new_tokens": 3,
        "repetition_penalty": 1.1,
        "seed": 7,
    }
    options = inference_options(sent)
    given = options.generation.model_dump()
    assert {name: given[name] for name in sent if name in given} == {
        name: value for name, value in sent.items() if name not in ("chat_template", "do_sample")
    }
    assert options.engine(EngineConfig()).template == sent["chat_template"]
    assert options.warnings == []


@pytest.mark.abuse(106)
@pytest.mark.parametrize(
    "wrong",
    [
        {"do_sample": "yes"},
        {"chat_template": 3},
        {"chat_template": " "},
        {"chat_template": "x" * 65_537},
        {"temperature": float("inf")},
        {"temperature": 1e308},
        {"top_p": 1e30},
    ],
)
def test_options_that_make_no_sense_are_refused(wrong) -> None:
    with pytest.raises(HTTPException) as caught:
        inference_options(wrong)
    assert caught.value.status_code == 422


def test_several_files_are_a_stimulus_each(tmp_path: Path) -> None:
    body = {**MINIMAL, "stimulusPaths": ["/data/prompt_00.json", "/data/prompt_01.json"]}
    assert built(body, tmp_path).stimuli == tmp_path / "stimuli.jsonl"
    one = {**MINIMAL, "stimulusPaths": ["/data/all.json"]}
    assert built(one, tmp_path).stimuli == tmp_path / "stimuli.jsonl"
    table = {**MINIMAL, "stimulusPaths": ["/data/all.csv"]}
    assert built(table, tmp_path).stimuli == tmp_path / "stimuli.csv"


def test_one_hot_rows_alone_are_classes(tmp_path: Path) -> None:
    (tmp_path / "expected_outputs.csv").write_text("0,1,0\n1,0,0\n")
    body = {**MINIMAL, "expectedOutputPath": "/data/e.csv"}
    config = with_classes(built(body, tmp_path), NewSearch.model_validate(body))
    assert config.labels == ("0", "1", "2")
    assert [term.function for term in config.error] == ["cross_entropy"]
    named = {**body, "error": "rouge_l"}
    assert with_classes(built(named, tmp_path), NewSearch.model_validate(named)).labels == ()


@pytest.mark.parametrize(
    ("rows", "width"),
    [
        ([["0", "1"], ["1", "0"]], 2),
        ([["1.0", "0.0", "0.0"]], 3),
        ([["1"], ["1"]], None),
        ([["0", "2"]], None),
        ([["1", "1"]], None),
        ([["0", "1"], ["0", "1", "0"]], None),
        ([["the reply"]], None),
        ([["x", "1"]], None),
        ([], None),
    ],
)
def test_which_rows_are_one_hot(rows: list[list[str]], width: int | None) -> None:
    assert one_hot_width(rows) == width


@pytest.mark.parametrize("text", [False, True], ids=["json", "json as text"])
def test_groups_of_a_request_are_those_of_a_file(tmp_path: Path, text: bool) -> None:
    rule = {"patterns": {"early": ["model.layers.0.*"]}, "rest": "refuse"}
    body = {**MINIMAL, "factorGroups": json.dumps(rule) if text else rule}
    config = built(body, tmp_path)
    assert config.factors.groups == FactorGroups.model_validate(rule)
    path = tmp_path / "search.yaml"
    path.write_text(dump_config(config))
    assert load_config(path).digest == config.digest
    assert built({**MINIMAL, "factorGroups": "kinds"}, tmp_path).factors.groups == FactorGroups(
        kinds="all"
    )
    assert built(MINIMAL, tmp_path).factors.groups is None
    with pytest.raises(ValidationError, match="factorGroups"):
        built({**MINIMAL, "factorGroups": {"layers": 0}}, tmp_path)


def test_labels_are_answered_where_there_are_groups_and_nowhere_else() -> None:
    result = make_result(factors=2)
    request = SimpleNamespace(id="r", project_id="p")
    assert "factor_labels" not in answer_of(request, result)
    names = ("a -> b: mlp", "a -> b: rest")
    grouped = result.model_copy(update={"factor_names": names, "factor_groups": ("mlp", "rest")})
    answer = answer_of(request, grouped)
    assert answer["factor_labels"] == list(names)
    assert SearchFindings.model_validate(answer).factor_labels == names
    plain = SearchFindings.model_validate(answer_of(request, result))
    assert "factor_labels" not in plain.to_json()
