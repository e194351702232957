"""``import ztom``: what it offers, what it costs, and what its objects show in a notebook."""

from __future__ import annotations

import doctest
import json
import subprocess
import sys
from pathlib import Path

import pytest
import search_results
import yaml
from gate_helpers import make_run, make_suite, right
from toys import make_plain_chain

import ztom
from ztom.errors import ChainError, ConfigError, EvaluationError, FactorError, VariantError
from ztom.evaluation.gate.decide import decide
from ztom.evaluation.runs.files import write_run
from ztom.evaluation.suites.lock import load_locked, lock_suite
from ztom.ledger import Ledger

REPOSITORY = Path(__file__).resolve().parents[2]


def test_a_dozen_names_are_offered() -> None:
    names = [name for name in ztom.__all__ if name != "__version__"]
    assert names == [
        *("Client", "SearchConfig", "ZtomError", "blend", "decide", "deploy", "evaluate"),
        *("load_chain", "load_variant", "run_search"),
    ]
    rooms = {path.stem for path in (REPOSITORY / "ztom").iterdir() if path.name[0] != "_"}
    assert not rooms & set(names)
    for name in ztom.__all__:
        assert getattr(ztom, name) is not None
        assert name in dir(ztom)
        assert name.startswith("_") or getattr(ztom, name).__doc__
    with pytest.raises(AttributeError, match="has no attribute 'merge'"):
        _ = ztom.merge


def test_what_a_type_checker_sees_is_what_there_is() -> None:
    source = (REPOSITORY / "ztom" / "__init__.py").read_text(encoding="utf-8")
    block = source.partition("if TYPE_CHECKING:")[2].partition("__all__")[0]
    seen = {word.strip("(), ") for word in block.split()} & set(ztom.__all__)
    assert seen == set(ztom.__all__) - {"__version__"}


def test_import_costs_nothing() -> None:
    """Modules are counted, not seconds."""
    code = "import json, sys; before = set(sys.modules); import ztom; print(json.dumps(%s))"
    loaded = _python(code % "sorted(set(sys.modules) - before)")
    assert {name for name in loaded if name.partition(".")[0] == "ztom"} == {
        "ztom",
        "ztom.version",
    }
    assert {name.partition(".")[0] for name in loaded} <= {*sys.stdlib_module_names, "ztom"}
    assert len(loaded) < 40
    code = "import json, sys, ztom; ztom.Client, ztom.deploy; print(json.dumps(list(sys.modules)))"
    assert not {"torch", "ray", "vllm", "transformers", "tune_search"} & set(_python(code))


def _python(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names: list[str] = json.loads(done.stdout)
    return names


def test_the_example_of_the_docstring_runs() -> None:
    result = doctest.testmod(ztom)
    assert result.attempted >= 7
    assert result.failed == 0


@pytest.fixture
def members(tmp_path: Path) -> list[Path]:
    return make_plain_chain(tmp_path / "chain")


def test_a_chain_is_opened_from_a_file_or_from_references(members: list[Path]) -> None:
    file = members[0].parent / "chain.yaml"
    file.write_text(yaml.safe_dump({"checkpoints": ["00", "01", "02"]}))
    from_file, from_list = ztom.load_chain(str(file)), ztom.load_chain(members)
    assert from_file.digest == from_list.digest
    with pytest.raises(ChainError):
        ztom.load_chain(members[:1])


def test_a_blend_is_a_variant_on_record(members: list[Path], tmp_path: Path) -> None:
    written = []
    variant = ztom.blend(
        ztom.load_chain(members),
        [0.1, -0.5],
        tmp_path / "out" / "v",
        dtype="float32",
        progress=lambda done, total: written.append((done, total)),
    )
    assert written[-1][0] == written[-1][1] > 0
    again = ztom.load_variant(variant)
    assert (again.digest, again.factors, again.folder) == (
        variant.digest,
        (0.1, -0.5),
        tmp_path / "out" / "v",
    )
    with Ledger.open(str(tmp_path / "out" / "ledger.db")) as ledger:
        assert [v.digest for v in ledger.variants.all()] == [variant.digest]
    (tmp_path / "out" / "v" / "config.json").write_text("{}")
    with pytest.raises(VariantError):
        ztom.load_variant(tmp_path / "out" / "v")
    with pytest.raises(FactorError):
        ztom.blend(ztom.load_chain(members), [0.1], tmp_path / "w")


def test_the_gate_decides_on_results_or_on_their_folders(tmp_path: Path) -> None:
    folder = tmp_path / "suites" / "frozen"
    folder.mkdir(parents=True)
    config = {
        "name": "frozen",
        "version": "1.0.0",
        "layer": "frozen",
        "metric": "exact_match",
        "owner": "tests",
    }
    (folder / "suite.yaml").write_text(yaml.safe_dump(config))
    items = [{"id": f"i{n:04}", "input": f"q{n}", "target": "a"} for n in range(200)]
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    lock_suite(folder)
    suite = load_locked(folder)
    good, bad = make_run(suite, right(200)), make_run(suite, right(200, wrong=range(60)), "worse")
    assert ztom.decide([good], [good], folder).outcome == "pass"
    write_run(bad, tmp_path / "bad")
    write_run(good, tmp_path / "good")
    verdict = ztom.decide(tmp_path / "bad", tmp_path / "good", [tmp_path / "suites"])
    assert verdict.outcome == "fail"
    with pytest.raises(EvaluationError, match="first"):
        ztom.decide([good], [good], folder, first=True)


def test_a_search_is_refused_before_anything_starts(tmp_path: Path) -> None:
    content = {"chain": {"checkpoints": ["a", "b"]}, "stimuli": "s.jsonl", "eror": "rouge_l"}
    with pytest.raises(ConfigError, match="eror"):
        ztom.run_search(content)
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match="eror"):
        ztom.run_search(tmp_path / "s.yaml")
    with pytest.raises(ConfigError, match="overrides"):
        ztom.run_search(content, overrides=["seed=1"])


def test_an_engine_that_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="engine's configuration is wrong.*dtype"):
        ztom.evaluate(tmp_path, tmp_path, engine={"dtype": "int4"})


def test_chain_variant_verdict_and_result_show_themselves(
    members: list[Path], tmp_path: Path
) -> None:
    chain = ztom.load_chain(
        {"checkpoints": [{"reference": str(m), "tag": f"<b>{m.name}</b>"} for m in members]}
    )
    variant = ztom.blend(chain, [0.1, -0.5], tmp_path / "v")
    suite = make_suite(name="frozen")
    verdict = decide([make_run(suite, right(100))], [make_run(suite, right(100))], [suite])
    result = search_results.make_result(proof=search_results.make_proof())
    shown = {
        "chain": (chain, [chain.digest[:12], "sequence"]),
        "variant": (variant, [variant.digest[:12], "+0.1000"]),
        "verdict": (verdict, ["gate: pass", "frozen"]),
        "result": (result, [f"search {result.name}", "improvement on the holdout"]),
    }
    for value, texts in shown.values():
        html = value._repr_html_()
        assert len(html) < 20_000
        assert html.count("<table>") == html.count("</table>") >= 2
        assert "<b>" not in html
        for text in texts:
            assert text in html
    assert "&lt;b&gt;00&lt;/b&gt;" in chain._repr_html_()


def test_long_tables_are_cut() -> None:
    from ztom.pages.notebook import MOST_ROWS, NotebookTable, notebook_panel

    table = NotebookTable(("number",), [[str(n)] for n in range(1000, 1100)])
    html = notebook_panel("x", {}, table)
    assert html.count("<td") == MOST_ROWS
    assert f"and {100 - MOST_ROWS} more" in html
