"""A chain whose base alone is better than what a small limit can reach, from data to card.

Engines run in this process: what Ray adds is tested with Ray.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from toys import make_chain

from serve_apps.endpoints.evidence import open_variant
from serve_apps.variants.args import VariantArgs
from serve_apps.variants.identity import identify
from serve_apps.variants.swap import read_blended
from tune_search.command import result_lines
from tune_search.engine_actor import EngineActor
from tune_search.payload import Answers, Needs, Questions, StudyInputs
from tune_search.preparation import RunInputs, prepare
from tune_search.prove import prove
from tune_search.run import build_result, with_proof
from tune_search.score_actor import TrialScorer
from tune_search.study import make_plan
from tune_search.study_record import open_study
from tune_search.trial import Evaluator
from ztom.engines.protocol import EngineInfo
from ztom.errors import EngineError, ReferenceRefusedError
from ztom.io.places import parse_store_address
from ztom.io.store_files import StoreFiles
from ztom.ledger import Ledger
from ztom.search.conductor import Conductor
from ztom.search.config import SearchConfig
from ztom.search.config_files import parse_config
from ztom.search.existing import Standing
from ztom.search.outcome import build_outcome
from ztom.search.report.render import render_report
from ztom.search.result import SearchResult
from ztom.search.samplers.build import build_sampler
from ztom.settings import Settings
from ztom.variants.manifest import read_manifest

ADVICE = "checkpoint base alone is better: use it"
WORDS = ("heart", "lung", "pain", "cold", "sleep", "skin", "salt", "iron", "walk")


class LocalClient:
    """An engine of this process, with the answers that it was asked for."""

    def __init__(self, inputs: StudyInputs) -> None:
        self._inputs = inputs
        self._engine = EngineActor()
        self.needs: list[tuple[tuple[float, ...], frozenset[Any]]] = []
        self.broken: tuple[float, ...] | None = None

    def start(self) -> EngineInfo:
        return self._engine.start(self._inputs.engine, Questions.of(self._inputs))

    def answer(self, factors: tuple[float, ...], needs: Needs) -> Answers:
        self.needs.append((factors, needs["search"]))
        if factors == self.broken:
            raise EngineError("it ran out of memory")
        return self._engine.evaluate(factors, needs)


def write_questions(path: Path, count: int, *, first: int) -> str:
    lines = [
        {
            "prompt": f"{WORDS[i % 9]} and {WORDS[(i * 5 + 1) % 9]} {i * 37} days?",
            "expected": f"{WORDS[(i * 7) % 9]} {WORDS[(i * 2) % 9]} {i}",
        }
        for i in range(first, first + count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_chain(tmp_path_factory.mktemp("chain"), members=3, step=1.5)  # ever worse


@pytest.fixture
def config(folders: list[Path], tmp_path: Path) -> SearchConfig:
    members = [
        {"reference": str(folder), "tag": tag}
        for folder, tag in zip(folders, ("base", "one", "two"), strict=True)
    ]
    content: dict[str, Any] = {
        "chain": {"checkpoints": members},
        "stimuli": write_questions(tmp_path / "search.jsonl", 12, first=0),
        "holdout": write_questions(tmp_path / "holdout.jsonl", 24, first=100),
        "error": "cross_entropy",
        "lower_bound": [-0.05, -0.05],  # every point takes some of the steps back
        "upper_bound": [-0.02, -0.02],
        "engine": {"name": "torch", "dtype": "float32"},
        "inference_config": {"max_new_tokens": 2},
        "sampler": "random",
        "budget": {"evaluations": 3},
        "insist": True,
        "output": str(tmp_path / "out"),
    }
    return parse_config(content)


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> list[LocalClient]:
    """The engines that a proof starts, in order."""
    made: list[LocalClient] = []

    def start(inputs: StudyInputs, **options: object) -> list[LocalClient]:
        made.append(LocalClient(inputs))
        return made[-1:]

    monkeypatch.setattr("tune_search.holdout.make_clients", start)
    monkeypatch.setattr("tune_search.holdout.stop_engines", lambda stopped: None)
    return made


def searched(
    config: SearchConfig, inputs: RunInputs, *, fails_in_search: tuple[float, ...] | None = None
) -> SearchResult:
    """A search and its proof, one trial after the other."""
    client, scorer = LocalClient(inputs.study), TrialScorer(inputs.study.data)
    evaluate = Evaluator().evaluate
    client.start()
    client.broken = fails_in_search
    plan = make_plan(config, inputs.study)
    sampler = build_sampler(config.sampler, plan.space, seed=0)
    with Ledger.open(config.ledger_address) as ledger:
        study = open_study(config, inputs.study, ledger, resume=False)
        conductor = Conductor(plan, ledger, study.id, sampler=sampler, on_event=lambda event: None)
        while (trial := conductor.next()) is not None:
            report = evaluate(client, scorer, trial.factors)  # type: ignore[arg-type]
            conductor.complete(trial.number, report.outcome)
        outcome = build_outcome(
            plan, study.id, conductor.trials, stop_reason="budget", seconds={"total": 1.0}
        )
        result = build_result(config, inputs, outcome, ledger)
        return with_proof(
            result, *prove(config, inputs, outcome, ledger, on_event=lambda event: None)
        )


def test_a_base_that_is_better_than_the_blend_is_said_first(
    config: SearchConfig, clients: list[LocalClient], tmp_path: Path
) -> None:
    result = searched(config, prepare(config))

    assert [(m.name, m.kind) for m in result.existing] == [
        ("base", "checkpoint"),
        ("one", "checkpoint"),
        ("two", "trained"),
        ("average", "average"),
    ]
    base, one, trained, mean = result.existing
    assert base.factors == (-1.0, -1.0)
    assert mean.factors == pytest.approx((-1 / 3, -2 / 3))
    proof = result.proof
    assert proof is not None
    assert trained.search_error == result.trained_model_error
    assert trained.holdout_error == proof.trained_model_error
    for model in (base, one, mean):
        assert model.search_error < trained.search_error  # type: ignore[operator]
        assert model.holdout_error < trained.holdout_error  # type: ignore[operator]
    assert result.baseline_inferences == 3 + 3
    assert result.number_of_inferences == len(result.trials) - 3
    assert len(result.step_gains) == 2

    best = result.best_existing
    assert best is not None
    assert (best.name, best.outcome, result.advice) == ("base", Standing.WORSE, ADVICE)
    assert best.improvement is not None
    difference = base.holdout_error - proof.optimized_model_error  # type: ignore[operator]
    assert best.improvement.estimate == pytest.approx(difference)
    assert best.improvement.high < 0

    assert result_lines(result, config, tmp_path / "search.yaml")[0] == ADVICE
    main = render_report(result).partition("<main")[2]
    assert main.index(ADVICE) < main.index("<section")
    card = (tmp_path / "out" / "variant" / "README.md").read_text()
    assert card.split("---\n")[2].lstrip().startswith(f"**{ADVICE}**")
    recipe = json.loads((tmp_path / "out" / "variant" / "recipe.json").read_text())
    assert recipe["evidence"]["best_existing"]["name"] == "base"

    assert len(clients) == 2  # one engine for everything but the variant as written
    assert [factors for factors, _ in clients[0].needs] == [
        trained.factors,
        base.factors,
        one.factors,
        mean.factors,
    ]
    needs = [[str(need) for need in wanted] for _, wanted in clients[0].needs]
    assert "text" in needs[0]
    assert not any("text" in wanted for wanted in needs[1:])  # likelihoods alone are enough


def test_a_checkpoint_that_fails_is_shown_with_its_reason(
    config: SearchConfig, clients: list[LocalClient]
) -> None:
    base, one = (-1.0, -1.0), (0.0, -1.0)
    result = searched(config, prepare(config), fails_in_search=base)
    assert [factors for factors, _ in clients[0].needs][1] == one  # the base is not asked again
    failed = result.existing[0]
    assert (failed.search_error, failed.holdout_error) == (None, None)
    assert failed.reason is not None
    assert failed.reason.startswith("it ran out of memory")
    assert result.best_existing is not None
    assert result.best_existing.name == "one"
    assert result.baseline_inferences == 3 + 2
    assert result.proof is not None


def test_in_a_store_the_variant_is_proved_and_served_from_there(
    config: SearchConfig,
    clients: list[LocalClient],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the engine of the proof loads comes from the store: on a node without this disk."""
    loaded: list[Path] = []
    build = "ztom.engines.build.build_single"
    load = import_module("ztom.engines.build").build_single
    monkeypatch.setattr(
        build, lambda options, folder: loaded.append(folder) or load(options, folder)
    )
    monkeypatch.setenv("ZTOM_CACHE_DIR", str(tmp_path / "cache"))
    address, ledger = f"memory://{tmp_path.name}/run", str(tmp_path / "ledger.db")
    content = {**config.model_dump(exclude_unset=True), "output": address, "ledger": ledger}
    in_store = parse_config(content)
    assert in_store.digest == config.digest
    result = searched(in_store, prepare(in_store))

    proof, store = result.proof, StoreFiles(parse_store_address(address))
    assert proof is not None
    assert proof.variant == f"{address}/variant"
    assert loaded[0].is_relative_to(tmp_path / "cache" / "node")
    assert {name.partition("/")[0] for name in store.names()} == {"variant"}  # nothing is left
    served = VariantArgs(variant=proof.variant, name="support")
    identity = identify(served)
    assert identity.digest == proof.variant_digest
    weights = "model.safetensors"
    assert (identity.folder / weights).samefile(loaded[0] / weights)  # it came once
    with Ledger.open(ledger) as book:
        assert [v.address for v in book.variants.all()] == [proof.variant]
    papers = open_variant(proof.variant, Settings(allowed_roots=(f"memory://{tmp_path.name}",)))
    assert (papers.digest, str(papers.folder)) == (identity.digest, proof.variant)
    with pytest.raises(ReferenceRefusedError):
        open_variant(proof.variant, Settings(allowed_roots=("memory://elsewhere",)))
    blended = read_blended(papers.folder, "support", home=tmp_path)
    assert blended.identity.digest == identity.digest  # a swap needs the papers alone


def test_with_a_storage_the_variant_is_put_there_as_well(
    config: SearchConfig,
    clients: list[LocalClient],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage = f"memory://{tmp_path.name}/storage"
    monkeypatch.setenv("ZTOM_STORAGE", storage)
    monkeypatch.setenv("ZTOM_CACHE_DIR", str(tmp_path / "cache"))
    proof = searched(config, prepare(config)).proof
    assert proof is not None
    assert proof.variant == f"{storage}/variants/{proof.variant_digest}"
    assert read_manifest(parse_store_address(proof.variant)) == read_manifest(
        tmp_path / "out" / "variant"
    )
