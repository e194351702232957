"""What one command needs may be missing: everything else works, and the command says what to do."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from serve_apps.tracing import Tracing
from ztom.checkpoints.object_store import ObjectSource
from ztom.drift.shape import language_of
from ztom.engines.build import build_single
from ztom.engines.config import EngineConfig
from ztom.errors import ConfigError
from ztom.evaluation.runs.lm_tasks import run_tasks
from ztom.evaluation.runs.results import ModelRef
from ztom.io.files import write_whole
from ztom.io.places import parse_store_address
from ztom.ledger import Ledger
from ztom.search.samplers.build import build_sampler
from ztom.search.samplers.protocol import SamplerConfig
from ztom.search.space import SearchSpace
from ztom.search.trackers.config import TrackerConfig, require_trackers
from ztom.settings import Settings

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
SPACE = SearchSpace(("one", "two"), (-0.1, -0.1), (0.1, 0.1))


def sampler(name: str) -> None:
    build_sampler(SamplerConfig(name=name), SPACE, seed=0).close()


def tasks() -> None:
    run_tasks(SimpleNamespace(), ["arc_easy"], ModelRef(name="m", digest="0" * 64))


def traces() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_TRACES_EXPORTER", "otlp")
        Tracing.from_environment()


#: Module that is hidden, extra that brings it, and what needs it.
NEEDS: list[tuple[str, str, Callable[[], object]]] = [
    ("nlopt", "cobyla", lambda: sampler("cobyla")),
    ("cmaes", "cmaes", lambda: sampler("cmaes")),
    ("lm_eval", "lm-eval", tasks),
    ("s3fs", "s3", lambda: ObjectSource("s3://b/m", "s3", "b/m", settings=Settings())),
    ("s3fs", "s3", lambda: write_whole(parse_store_address("s3://bucket/file"), "")),
    ("py3langid", "languages", lambda: language_of("where is my card?")),
    ("psycopg", "postgresql", lambda: Ledger.open("postgresql+psycopg://u@127.0.0.1:9/db")),
    ("mlflow", "mlflow", lambda: require_trackers([TrackerConfig(name="mlflow")])),
    ("wandb", "wandb", lambda: require_trackers([TrackerConfig(name="wandb")])),
    ("tensorboardX", "tensorboard", lambda: require_trackers([TrackerConfig(name="tensorboard")])),
    ("opentelemetry", "opentelemetry", traces),
    ("vllm", "gpu", lambda: build_single(EngineConfig(name="vllm"), Path("no-model"))),
]


@pytest.mark.parametrize(("module", "extra", "act"), NEEDS)
def test_what_is_missing_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, module: str, extra: str, act: Callable[[], object]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf'{module}.*pip install "ztom\[{extra}\]"'):
        act()


def test_every_extra_of_a_command_is_tried_and_part_of_all() -> None:
    extras = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    of_commands = set(extras) - {"all", "cpu", "dev", "docs", "gpu", "load"}
    of_commands -= {"optuna-dashboard", "deploy", "checkov"}
    assert of_commands == {extra for _, extra, _ in NEEDS} - {"gpu"}
    assert extras["all"] == [f"ztom[{','.join(sorted(of_commands))}]"]


def test_every_package_is_imported_without_the_extras() -> None:
    """In a process of its own, in which none of the modules can be imported.

    The server's own processes, which start again when one dies, import nothing of models either.
    """
    code = """
import sys
for name in ("nlopt", "cmaes", "lm_eval", "datasets", "s3fs", "psycopg", "vllm", "mlflow",
             "wandb", "tensorboardX"):
    sys.modules[name] = None
import serve_apps.server.app, serve_apps.variants.launch
heavy = {"torch", "transformers", "sklearn"} & {name.partition(".")[0] for name in sys.modules}
assert not heavy, heavy
import tune_search.__main__, tune_search.prove, tune_search.run
import ztom.api, ztom.cli.main, ztom.evaluation.runs.harness, ztom.evaluation.runs.lm_tasks
import ztom.ledger, ztom.search.report.render, ztom.search.samplers.callback
print("imported")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "imported\n", done.stderr
