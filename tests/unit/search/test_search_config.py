from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from ztom.errors import ConfigError
from ztom.search.config import SearchConfig
from ztom.search.config_files import dump_config, load_config, parse_config
from ztom.search.example import example

MINIMAL = {"chain": "chain.yaml", "stimuli": "data.jsonl", "error": "cross_entropy"}


def write(folder: Path, content: object, name: str = "my.yaml") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def wrong(**changes: object) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config({**MINIMAL, **changes})
    return str(caught.value)


def test_example_loads_and_shows_the_defaults(tmp_path):
    config = load_config(write(tmp_path, example()))
    plain = parse_config(MINIMAL)
    same = set(SearchConfig.model_fields) - {
        *("name", "chain", "stimuli", "error", "holdout", "guardrails", "output")
    }
    assert {k: getattr(config, k) for k in same} == {k: getattr(plain, k) for k in same}


def test_example_names_every_key():
    shown = example().replace("# ", "")
    assert [key for key in SearchConfig.model_fields if f"{key}:" not in shown] == []


def test_paths_are_relative_to_the_file(tmp_path):
    guardrail = {"name": "g", "stimuli": "sub/g.jsonl", "error": "mse"}
    content = {**MINIMAL, "guardrails": [guardrail], "holdout": "/absolute/h.jsonl"}
    config = load_config(write(tmp_path, content))
    assert config.chain == tmp_path / "chain.yaml"
    assert config.guardrails[0].stimuli == tmp_path / "sub/g.jsonl"
    assert config.holdout == Path("/absolute/h.jsonl")
    assert config.name == "my"
    assert config.output == tmp_path / "runs/my"
    assert config.ledger_address == str(tmp_path / "runs/my/ledger.db")


def test_inline_chain_is_anchored(tmp_path):
    chain = {"checkpoints": ["base", "gs://bucket/it"]}
    config = load_config(write(tmp_path, {**MINIMAL, "chain": chain}))
    references = [member.reference for member in config.chain.checkpoints]
    assert references == [str(tmp_path / "base"), "gs://bucket/it"]


def test_overrides(tmp_path):
    guardrail = {"name": "g", "stimuli": "g.jsonl", "error": "mse"}
    path = write(tmp_path, {**MINIMAL, "guardrails": [guardrail]})
    config = load_config(
        path,
        [
            "budget.evaluations=7",
            "guardrails.0.max_increase=0.5",
            "sampler=random",
            "error=[rouge_l, {function: token_f1, weight: 2}]",
            "inference_config.stop=['a=b']",
        ],
    )
    assert config.budget.evaluations == 7
    assert config.guardrails[0].max_increase == 0.5
    assert config.sampler.name == "random"
    assert [(term.function, term.weight) for term in config.error] == [
        ("rouge_l", 1.0),
        ("token_f1", 2.0),
    ]
    assert config.inference_config.stop == ("a=b",)


@pytest.mark.parametrize(
    "override", ["budget", "=3", "budget.evaluations=[", "guardrails.0.x=1", "seed.deep=1"]
)
def test_malformed_overrides_are_refused(tmp_path, override):
    path = write(tmp_path, {**MINIMAL, "guardrails": [], "seed": 3})
    with pytest.raises(ConfigError):
        load_config(path, [override])


def test_a_misspelt_key_is_named_with_a_suggestion():
    assert "scaling_factor_limt: no such key (did you mean scaling_factor_limit?)" in wrong(
        scaling_factor_limt=0.1
    )
    assert "budget.evaluation: no such key (did you mean evaluations?)" in wrong(
        budget={"evaluation": 3}
    )
    assert "engine.tensor_paralel_size" in wrong(engine={"tensor_paralel_size": 2})


def test_every_wrong_key_is_named():
    text = wrong(seed=-1, batch_size=0)
    assert "seed" in text
    assert "batch_size" in text


@pytest.mark.abuse(40)
@pytest.mark.parametrize("limit", [0, -0.1, "1e999", float("nan"), 11, "text", None, [0.1]])
def test_limits_that_are_no_positive_number_are_refused(limit):
    assert "scaling_factor_limit" in wrong(scaling_factor_limit=limit)


@pytest.mark.abuse(52)
@pytest.mark.parametrize("evaluations", [0, -1, 10**9, 1.5, "many"])
def test_budgets_out_of_bounds_are_refused(evaluations):
    assert "budget.evaluations" in wrong(budget={"evaluations": evaluations})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lower_bound": [-1.0]}, "give both or neither"),
        ({"lower_bound": [-1.0], "upper_bound": [1.0, 1.0]}, "differ in length"),
        ({"lower_bound": [1.0], "upper_bound": [-1.0]}, "must be below"),
        ({"lower_bound": [float("-inf")], "upper_bound": [1.0]}, "lower_bound"),
        ({"lower_bound": [0.0], "upper_bound": [1.0], "scaling_factor_limit": 1.0}, "not both"),
        ({"error": []}, "error"),
        ({"error": "rouge_x"}, "Did you mean rouge_l?"),
        ({"error": "module-function"}, "package.module:name"),
        ({"error": {"function": "rouge_l", "device": "cuda"}}, "does not take device"),
        ({"error": {"function": "cross_entropy", "source": "labels"}}, "none are given"),
        ({"error": {"function": "mse", "source": "tokens"}}, "expected values, text"),
        ({"labels": ["a", "a"]}, "a class label is given twice"),
        ({"holdout_expected_outputs": "h.csv"}, "without holdout"),
        (
            {"guardrails": [{"name": "g", "stimuli": "g.jsonl", "error": "rouge_x"}]},
            "guardrails.0: unknown error function",
        ),
        ({"chain": {"checkpoints": ["a", "b"]}, "sampler": "cmaes"}, "two factors or more"),
        (
            {"chain": {"checkpoints": ["a", "b"]}, "lower_bound": [-1, -1], "upper_bound": [1, 1]},
            "for 2 factors and the chain has 1",
        ),
        ({"factors": {"groups": {"layers": 0}}}, "factors.groups.layers"),
        ({"factors": {"groups": {"kinds": ["convolutions"]}}}, "factors.groups.kinds"),
        ({"factors": {"groups": {"patterns": {}}}}, "patterns has no group"),
        ({"factors": {"groups": "layers"}}, "kinds, {layers: N}"),
        ({"factors": {"group": "kinds"}}, "factors.group"),
        ({"sampler": "bayes"}, "sampler"),
        ({"holdout_fraction": 1.0}, "holdout_fraction"),
        ({"generation_deadline_s": 0}, "generation_deadline_s"),
        ({"engine": {"name": "tensorflow"}}, "engine.name"),
        ({"inference_config": {"max_new_tokens": 0}}, "inference_config.max_new_tokens"),
        ({"chain": {"checkpoints": ["one"]}}, "chain.checkpoints"),
        ({"detailed_output": "YES_PLEASE"}, "detailed_output"),
    ],
)
def test_what_does_not_fit_is_refused(changes, said):
    assert said in wrong(**changes)


def test_guardrails_need_names_of_their_own():
    guardrail = {"name": "g", "stimuli": "g.jsonl", "error": "mse"}
    assert "different names" in wrong(guardrails=[guardrail, guardrail])
    assert "different names" in wrong(guardrails=[{**guardrail, "name": "search"}])


@pytest.mark.parametrize(
    "content",
    ["", "- a\n- b\n", "chain: [", "seed: 1\nseed: 2\n", "a: &a [*a]\n", "[" * 5000, "\x00"],
)
def test_files_that_are_no_configuration_are_refused(tmp_path, content):
    with pytest.raises(ConfigError):
        load_config(write(tmp_path, content))


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "missing.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(ConfigError):
        load_config(tmp_path / "latin.yaml")


def test_digest_says_what_decides_the_factors():
    plain = parse_config(MINIMAL)
    same = parse_config(
        {**MINIMAL, "output": "/x", "generation_deadline_s": 5, "budget": {"seconds": 60}}
    )
    other = parse_config({**MINIMAL, "seed": 1, "sampler": "tpe"})
    assert plain.digest == same.digest
    assert plain.digest != other.digest
    stored = json.loads(plain.model_dump_json())
    assert plain.differences(stored) == []
    assert other.differences(stored) == ["sampler", "seed"]


def test_without_groups_the_digest_is_that_of_the_versions_before_them():
    before = {"chain": {"checkpoints": ["/a", "/b", "/c"]}, "stimuli": "/s.jsonl"}
    plain = parse_config({**before, "error": "rouge_l"})
    assert plain.digest == "ea82ef4f2dba9b6889f9990868eeebc82a11917d3c9137e2e3c526d6ff068c9c"
    stored = json.loads(plain.model_dump_json())
    del stored["factors"]
    assert plain.differences(stored) == []


def test_groups_decide_the_factors(tmp_path):
    early, late = {"early": ["model.layers.0.*"]}, {"late": ["model.layers.1.*"]}
    rules = ["kinds", {"layers": 4}, {"patterns": early | late}, {"patterns": late | early}]
    plain = parse_config({"chain": "/chain.yaml", "stimuli": "/s.jsonl", "error": "rouge_l"})
    content = plain.model_dump(exclude_unset=True)
    configs = [parse_config({**content, "factors": {"groups": rule}}) for rule in rules]
    assert len({config.digest for config in (plain, *configs)}) == 5
    for config in configs:
        assert config.differences(json.loads(config.model_dump_json())) == []
        assert plain.differences(json.loads(config.model_dump_json())) == ["factors"]
        path = tmp_path / f"{config.digest}.yaml"
        path.write_text(dump_config(config))
        assert load_config(path).digest == config.digest
    path = write(tmp_path, MINIMAL)
    assert load_config(path, ["factors.groups=kinds"]).factors.groups.kinds == "all"
    assert load_config(path, ["factors.groups.layers=4"]).factors.groups.layers == 4


def test_store_and_return_is_detailed_output():
    assert parse_config({**MINIMAL, "detailed_output": "STORE_AND_RETURN"}).wants_outputs
    assert not parse_config(MINIMAL).wants_outputs


def test_a_users_own_function_is_not_imported_to_check_its_name():
    assert parse_config({**MINIMAL, "error": "no.such.module:function"}).error[0].weight == 1.0


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"lower_bound": [0.0, -1.0], "upper_bound": [1.0, 1.0], "name": "grüße: #1"},
        {
            "chain": {"checkpoints": [{"reference": "/a", "tag": "a: b"}, "/b"]},
            "error": [{"function": "rouge_l", "weight": 2.0}, "my.module:function"],
            "guardrails": [{"name": "g", "stimuli": "g.jsonl", "error": "mse"}],
            "inference_config": {"stop": ["\n", "- a"], "max_new_tokens": 3},
            "sampler": {"name": "cobyla", "ftol_rel": 1e-7},
            "budget": {"evaluations": 9},
            "detailed_output": "STORE_AND_RETURN",
        },
    ],
)
def test_what_is_written_is_read_back(tmp_path, changes):
    config = load_config(write(tmp_path, {**MINIMAL, **changes}))
    path = tmp_path / "elsewhere" / "search.yaml"
    path.parent.mkdir()
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(path) == config
    assert load_config(path).digest == config.digest
