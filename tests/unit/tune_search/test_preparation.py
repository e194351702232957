from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import yaml
from toy_checkpoints import llama_tensors, write_checkpoint

from cluster.capacity import NodeNeeds
from tune_search.payload import EnginePlace
from tune_search.preparation import prepare
from ztom.errors import (
    ConfigError,
    EvaluationError,
    FactorError,
    LeakageError,
    StimuliError,
    ZtomError,
)
from ztom.evaluation.suites.lock import lock_suite
from ztom.io.hub import HubFile
from ztom.io.hub_address import HubAddress
from ztom.search.config_files import load_config
from ztom.search.result import data_file_entry
from ztom.settings import Settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed in range(3):
        write_checkpoint(tmp_path / f"c{seed}", llama_tensors(seed))
    write_stimuli(tmp_path / "search.jsonl", "search", 40)
    write_stimuli(tmp_path / "holdout.jsonl", "holdout", 10)
    write_stimuli(tmp_path / "other.jsonl", "other", 20)
    return tmp_path


def write_stimuli(path: Path, word: str, count: int) -> None:
    lines = [
        {"id": f"{word}{i}", "prompt": f"{word} {i} asks {i * 7} for {i * i}", "expected": str(i)}
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def make(folder: Path, **more: object):
    content = {
        "chain": {"checkpoints": ["c0", "c1", "c2"]},
        "stimuli": "search.jsonl",
        "error": "cross_entropy",
        "engine": {"name": "ztom.testing.fake_engine:make_engine"},
        **more,
    }
    (folder / "search.yaml").write_text(yaml.safe_dump(content))
    return prepare(load_config(folder / "search.yaml"), settings=Settings())


def test_one_file_is_split_and_the_sides_are_apart(folder):
    ready = make(folder)
    search = ready.study.data[0].stimuli
    assert len(search) + len(ready.holdout) <= 40
    assert len(ready.holdout) >= 3
    assert not {s.group for s in search} & {s.group for s in ready.holdout}
    assert make(folder).study.data_digests == ready.study.data_digests
    assert make(folder, seed=1).study.data_digests != ready.study.data_digests


def test_holdout_file_has_to_be_disjoint(folder):
    assert len(make(folder, holdout="holdout.jsonl").holdout) == 10
    with pytest.raises(LeakageError):
        make(folder, holdout="search.jsonl")


def test_suites_are_locked_and_hold_nothing_that_the_search_sees(folder):
    suite = folder / "suites" / "mine"
    suite.mkdir(parents=True)
    settings = {"name": "mine", "layer": "task", "metric": "exact_match", "owner": "me"}
    (suite / "suite.yaml").write_text(yaml.safe_dump(settings | {"version": "1.0.0"}))
    (suite / "items.jsonl").write_text('{"id": "a", "input": "what now", "target": "b"}\n')
    with pytest.raises(EvaluationError, match="lock"):
        make(folder, holdout="holdout.jsonl", suites=["suites"])
    lock_suite(suite)
    (found,) = make(folder, holdout="holdout.jsonl", suites=["suites"]).suites
    assert found.suite.config.name == "mine"
    seen = {"id": "a", "input": "search 3 asks 21 for 9", "target": "b"}
    (suite / "items.jsonl").write_text(json.dumps(seen) + "\n")
    (suite / "suite.yaml").write_text(yaml.safe_dump(settings | {"version": "2.0.0"}))
    lock_suite(suite)
    with pytest.raises(LeakageError, match="1 of 1 items"):
        make(folder, holdout="holdout.jsonl", suites=["suites"])


def test_suites_hold_nothing_that_a_guardrail_searches_with(folder):
    guardrail = {"name": "other", "stimuli": "other.jsonl", "error": "token_f1"}
    ready = make(folder, guardrails=[guardrail])
    searched = ready.study.data[1].stimuli[0].prompt
    held = ready.guardrail_holdouts["other"][0].prompt
    suite = folder / "suites" / "mine"
    suite.mkdir(parents=True)
    settings = {"name": "mine", "layer": "task", "metric": "exact_match", "owner": "me"}

    def lock(prompt, version):
        item = {"id": "a", "input": prompt, "target": "b"}
        (suite / "items.jsonl").write_text(json.dumps(item) + "\n")
        (suite / "suite.yaml").write_text(yaml.safe_dump(settings | {"version": version}))
        lock_suite(suite)

    lock(held, "1.0.0")
    assert make(folder, guardrails=[guardrail], suites=["suites"]).suites
    lock(searched, "2.0.0")
    with pytest.raises(LeakageError, match="1 of 1 items are in what guardrail other searches"):
        make(folder, guardrails=[guardrail], suites=["suites"])
    assert make(folder, suites=["suites"]).suites


def test_subsample_is_stable(folder):
    ten = make(folder, holdout="holdout.jsonl", max_search_stimuli=10).study.data[0].stimuli
    eleven = make(folder, holdout="holdout.jsonl", max_search_stimuli=11).study.data[0].stimuli
    assert len(ten) == 10
    assert {s.id for s in ten} < {s.id for s in eleven}
    ids = [s.id for s in make(folder, holdout="holdout.jsonl").study.data[0].stimuli]
    assert [s.id for s in ten] == [i for i in ids if i in {s.id for s in ten}]


def test_guardrails_are_data_sets_with_holdouts(folder):
    guardrail = {"name": "other", "stimuli": "other.jsonl", "error": "token_f1"}
    ready = make(folder, guardrails=[guardrail])
    assert [entry.name for entry in ready.study.data] == ["search", "other"]
    assert ready.study.data[1].error().name == "token_f1"
    assert ready.guardrail_holdouts["other"]


def test_work_travels_and_makes_an_engine(folder):
    work = pickle.loads(pickle.dumps(make(folder).study))
    engine = work.engine()
    engine.blend((0.05, -0.05))
    assert work.space.dimensions == 2
    assert work.place == EnginePlace(needs=NodeNeeds(gpus=1))  # where there are any
    assert work.data[0].error().name == "cross_entropy"


def test_bounds_have_to_fit_the_chain(folder):
    space = make(folder, lower_bound=[-0.1, 0.0], upper_bound=[0.2, 0.3]).study.space
    assert (space.lower, space.upper) == ((-0.1, 0.0), (0.2, 0.3))
    too_few = {"lower_bound": [-0.1], "upper_bound": [0.2]}
    with pytest.raises(ConfigError, match="for 1 factors and the chain has 2"):
        make(folder, **too_few)
    (folder / "chain.yaml").write_text(yaml.safe_dump({"checkpoints": ["c0", "c1", "c2"]}))
    with pytest.raises(FactorError, match="2 of each"):
        make(folder, chain="chain.yaml", **too_few)


def test_groups_make_a_factor_of_each_step_and_group(folder):
    ready = make(folder, factors={"groups": {"kinds": ["attention", "mlp"]}})
    space = ready.study.space
    assert space.groups == ready.chain.group_names == ("attention", "mlp", "rest")
    assert (space.dimensions, space.steps) == (6, 2)
    assert space.names == ready.chain.factor_names
    assert space.names[3] == "c1 -> c2: attention"
    assert space.expand((-1.0, 0.0)) == (-1.0, -1.0, -1.0, 0.0, 0.0, 0.0)
    assert make(folder).study.space.expand((-1.0, 0.0)) == (-1.0, 0.0)
    engine = pickle.loads(pickle.dumps(ready.study)).engine()
    engine.blend((0.05,) * 6)
    with pytest.raises(FactorError):
        engine.blend((0.05,) * 2)


def test_bounds_with_groups_are_one_per_step_or_one_per_factor(folder):
    groups = {"factors": {"groups": {"kinds": ["attention", "mlp"]}}}
    space = make(folder, **groups, lower_bound=[-0.1, 0.0], upper_bound=[0.2, 0.3]).study.space
    assert space.lower == (-0.1, -0.1, -0.1, 0.0, 0.0, 0.0)
    assert space.upper == (0.2, 0.2, 0.2, 0.3, 0.3, 0.3)
    flat = [-0.1, -0.2, -0.3, -0.4, -0.5, -0.6]
    space = make(folder, **groups, lower_bound=flat, upper_bound=[1.0] * 6).study.space
    assert space.lower == tuple(flat)
    with pytest.raises(FactorError, match=r"(?s)3 lower .* 6 of each, one per transition and gr"):
        make(folder, **groups, lower_bound=[-0.1] * 3, upper_bound=[0.1] * 3)


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ({"layers": 9}, "fewer layers than blocks"),
        ({"patterns": {"gone": ["nothing.*"]}}, "no tensor"),
        ({"kinds": ["other"]}, "of kind other"),
    ],
)
def test_groups_that_the_model_does_not_have_are_refused_before_anything_loads(
    folder, groups, said
):
    with pytest.raises(ConfigError, match=said):
        make(folder, factors={"groups": groups})


@pytest.mark.parametrize(
    "more",
    [
        {"stimuli": "missing.jsonl"},
        {"chain": "missing.yaml"},
        {"chain": {"checkpoints": ["c0", "missing"]}},
        {"holdout_expected_outputs": "x.csv"},
    ],
)
def test_what_is_missing_is_said(folder, more):
    with pytest.raises(ZtomError):
        make(folder, **more)


def test_what_was_left_out_of_the_data_is_kept_for_the_result(folder):
    records = [json.loads(line) for line in (folder / "search.jsonl").read_text().splitlines()]
    records[0]["source"] = "web"
    text = "\n\n".join(json.dumps(record) for record in records)
    (folder / "search.jsonl").write_text("\ufeff" + text)
    rail = {"name": "rail", "stimuli": "other.jsonl", "error": "cross_entropy"}
    read = make(folder, holdout="holdout.jsonl", guardrails=[rail]).data_files
    entries = [data_file_entry(file) for file in read]
    assert [(e.name, e.stimuli, e.left_out) for e in entries] == [
        ("search.jsonl", 40, {'field "source"': 1, "blank line": 39}),
        ("holdout.jsonl", 10, {}),
        ("other.jsonl", 20, {}),
    ]


def test_an_address_of_the_hub_is_no_path_of_the_folder(folder, monkeypatch):
    address = "hf://datasets/org/name@v1/data/train.jsonl"

    def fetch(place: HubAddress) -> HubFile:
        assert str(place) == address
        return HubFile(folder / "search.jsonl", place)

    monkeypatch.setattr("ztom.io.hub.fetch_hub_file", fetch)
    ready = make(folder, stimuli=address)
    assert data_file_entry(ready.data_files[0]).name == address


@pytest.mark.parametrize("address", ["hf://org/name/train.jsonl", "hf://datasets/org"])
def test_other_addresses_of_the_hub_are_refused(folder, address):
    with pytest.raises(StimuliError, match=f"none of a data set on the Hub: got {address}"):
        make(folder, stimuli=address)
