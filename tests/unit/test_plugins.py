"""What is added by entry point or by module: found, refused and told alike for all of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from toys import make_plain_chain

from ztom.blending.chain import load_chain
from ztom.blending.chain_file import ChainConfig
from ztom.checkpoints.registries.resolve import build_registry
from ztom.engines.build import build_engine, build_single
from ztom.engines.config import EngineConfig
from ztom.errors import ConfigError
from ztom.evaluation.metrics.build import build_metric
from ztom.evaluation.runs.results import SuiteRef
from ztom.evaluation.suites.suite import Item, Suite, SuiteConfig
from ztom.plugins import Group, installed, is_import_path
from ztom.scoring.build import ErrorTerm, build_error
from ztom.search.config_files import parse_config
from ztom.search.samplers.build import build_sampler, startup_count
from ztom.search.samplers.protocol import SamplerConfig
from ztom.search.space import SearchSpace
from ztom.settings import Settings
from ztom.stimuli.records import Output, Stimulus

MODULE = """
import numpy as np
from ztom.evaluation.metrics.protocol import Scored
from ztom.scoring.protocol import Need
from ztom.statistics.scores import MeanScores
from ztom.testing import FakeEngine


class Wrong:
    name, needs = "wrong", frozenset({Need.TEXT})

    def __init__(self, labels):
        self.labels = labels

    def score(self, stimuli, outputs):
        pairs = zip(stimuli, outputs, strict=True)
        return MeanScores(np.array([float(s.expected != o.text) for s, o in pairs]))


class Metric:
    def __init__(self, suite):
        self.suite = suite

    def score(self, cases):
        return [Scored(value=0.25) for _ in cases]

    def close(self):
        pass


class Sampler:
    sequential = True

    def __init__(self, config, space, seed):
        self.given = (config, space, seed)

    def warm_up(self):
        pass

    def ask(self, number):
        return None

    def tell(self, number, factors, *, error, violations):
        pass

    def close(self):
        pass


class Registry:
    def resolve(self, address, cache):
        return None


def make_engine(config, folder, chain):
    engine = FakeEngine(0 if chain is None else chain.transitions)
    engine.given = (config, folder)
    return engine


def broken(*_):
    raise KeyError("no such thing")


def nothing(*_):
    return object()


number = 3
"""
GROUPS = {
    Group.ERROR_FUNCTIONS: "Wrong",
    Group.METRICS: "Metric",
    Group.SAMPLERS: "Sampler",
    Group.ENGINES: "make_engine",
    Group.REGISTRIES: "Registry",
}
#: Of a search with nothing but defaults, from before samplers and engines could be added.
GOLDEN_DIGEST = "c03f389f080d4d9d8469ba0849d28a51d85ee1c3e1e4770031335f899ea7a4ce"
SPACE = SearchSpace(("one", "two"), (-0.1, -0.1), (0.1, 0.1))


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that offers one of each, called ``mine``, and things that are none."""
    folder = tmp_path / "site"
    info = folder / "my_plugins-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "my_plugins.py").write_text(MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-plugins\nVersion: 1.0\n")
    lines = []
    for group, name in GROUPS.items():
        lines += [f"[{group}]", f"mine = my_plugins:{name}", "broken = my_plugins:broken"]
        lines += ["absent = my_plugins:absent", "number = my_plugins:number", ""]
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(folder)
    return folder


def suite_of(metric: str) -> Suite:
    config = SuiteConfig.model_validate(
        {"name": "s", "version": "1.0.0", "owner": "me", "layer": "task", "metric": metric}
    )
    return Suite(config=config, items=(Item(id="i", input="q"),), digest="0" * 64)


def sampler(name: str) -> Any:
    return build_sampler(SamplerConfig(name=name), SPACE, seed=7)


def engine(name: str, folder: Path = Path("model")) -> Any:
    return build_single(EngineConfig(name=name), folder)


BUILD: dict[Group, Callable[[str], Any]] = {
    Group.ERROR_FUNCTIONS: build_error,
    Group.METRICS: lambda name: build_metric(suite_of(name)),
    Group.SAMPLERS: sampler,
    Group.ENGINES: engine,
    Group.REGISTRIES: build_registry,
}


@pytest.mark.parametrize("group", Group)
def test_an_installed_package_offers_names(group: Group) -> None:
    assert {"mine", "broken", "absent", "number"} <= set(installed(group))
    assert type(BUILD[group]("mine")).__name__ in {
        "Wrong",
        "Metric",
        "Sampler",
        "FakeEngine",
        "Registry",
    }


def test_factories_are_given_what_they_need(tmp_path: Path) -> None:
    error: Any = build_error("mine", labels=("a", "b"))
    assert error.labels == ("a", "b")
    stimulus = Stimulus(id="1", prompt="p", expected="a", group="1")
    assert error.score([stimulus], [Output(text="b")]).aggregate().tolist() == [1.0]
    assert sampler("mine").given == (SamplerConfig(name="mine"), SPACE, 7)
    suite = suite_of("mine")
    metric: Any = build_metric(suite)
    assert metric.suite == suite
    config = EngineConfig(name="mine", dtype="float32")
    single: Any = build_single(config, tmp_path)
    assert (single.given, single.factors) == ((config, tmp_path), ())
    members = [str(path) for path in make_plain_chain(tmp_path, members=3)]
    chain = load_chain(ChainConfig.model_validate({"checkpoints": members}), settings=Settings())
    blended: Any = build_engine(config, chain)
    assert blended.factors == (0.0, 0.0)
    assert blended.given == (config, Path(members[-1]))


def test_samplers_and_engines_come_from_a_module_in_this_process() -> None:
    assert sampler("my_plugins:Sampler").given[2] == 7
    assert engine("my_plugins:make_engine").factors == ()
    assert startup_count(SamplerConfig(name="my_plugins:Sampler"), SPACE, 50) == 0


def test_functions_from_a_module_stay_in_a_process_of_their_own(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package / "plain.py").write_text(
        "import os\ndef pid(prompts, outputs, expected): return [float(os.getpid())] * len(prompts)"
    )
    monkeypatch.chdir(package)
    stimulus = Stimulus(id="1", prompt="p", expected="a", group="1")
    (own,) = build_error("plain:pid").score([stimulus], [Output(text="b")]).per_stimulus
    assert own not in (0.0, float(os.getpid()))
    config = suite_of("plain:pid").config
    assert (config.metric, config.function) == ("user", "plain:pid")


@pytest.mark.parametrize("group", Group)
def test_an_unknown_name_is_refused_with_what_there_is(group: Group) -> None:
    with pytest.raises(ValueError, match=f"unknown {group.noun}") as refusal:
        BUILD[group]("mime")
    message = str(refusal.value)
    assert "Did you mean mine?" in message
    assert f"entry points {group}" in message
    assert "package.module:name" in message


@pytest.mark.parametrize("group", Group)
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("absent", "cannot be imported: AttributeError"),
        ("broken", "could not be made: KeyError"),
        ("number", "is no factory: got int"),
    ],
)
def test_what_is_no_factory_is_refused_by_name(group: Group, name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=f"{group.noun} {name} {reason}"):
        BUILD[group](name)


@pytest.mark.parametrize("group", [Group.SAMPLERS, Group.ENGINES])
def test_a_module_that_is_not_there_is_refused_with_what_to_do(group: Group) -> None:
    with pytest.raises(ConfigError, match=r"cannot be imported: ModuleNotFoundError.*PYTHONP"):
        BUILD[group]("nowhere_at_all:make")


def test_what_a_factory_made_is_looked_at() -> None:
    with pytest.raises(ConfigError, match="made something else than a Sampler: got .*without ask"):
        sampler("my_plugins:nothing")


@pytest.mark.parametrize("group", Group)
def test_two_packages_with_one_name_are_refused(
    group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "other" / "other_plugins-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-plugins\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\nmine = other_plugins:make\n")
    monkeypatch.syspath_prepend(tmp_path / "other")
    with pytest.raises(ConfigError, match="mine is offered by several packages"):
        BUILD[group]("mine")


def test_options_of_built_in_functions_are_refused() -> None:
    for option in ({"source": "text"}, {"device": "cpu"}, {"deadline_s": 3.0}):
        with pytest.raises(ConfigError, match="error function mine does not take"):
            build_error(ErrorTerm.model_validate({"function": "mine", **option}))


def test_a_search_names_them(tmp_path: Path) -> None:
    content = {
        "chain": "chain.yaml",
        "stimuli": "stimuli.jsonl",
        "error": "mine",
        "sampler": "mine",
        "engine": {"name": "mine"},
    }
    config = parse_config(content)
    assert (config.sampler.name, config.engine.name) == ("mine", "mine")
    for key, wrong in (("sampler", "mime"), ("engine", {"name": "mime"})):
        with pytest.raises(ConfigError, match=r"Did you mean mine\?"):
            parse_config({**content, key: wrong})


def test_the_digest_of_a_search_is_what_it_was() -> None:
    content = {"chain": "/c.yaml", "stimuli": "/s.jsonl", "error": "rouge_l", "output": "/o"}
    assert parse_config(content).digest == GOLDEN_DIGEST


def test_results_with_a_metric_that_is_not_here_can_be_read() -> None:
    document = {
        "name": "s",
        "version": "1.0.0",
        "layer": "task",
        "metric": "theirs",
        "digest": "0" * 64,
    }
    assert SuiteRef.model_validate_json(json.dumps(document)).metric == "theirs"
    with pytest.raises(ValidationError):
        SuiteRef.model_validate(document | {"metric": "<b>"})


def test_only_names_of_modules_are_import_paths() -> None:
    assert is_import_path("a.b:c")
    assert is_import_path("a:b.c")
    assert not any(map(is_import_path, ("gp", "a.b", "a:", ":b", "os; import x:f", "a:b c")))
