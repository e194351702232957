"""YAML that people write: a key that stands twice is refused in every file, by name and line."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

from ztom.blending.chain_file import read_chain_file
from ztom.cli.actions.endpoint_files import apply_command
from ztom.cli.actions.endpoints import deploy_command
from ztom.cli.actions.server_options import parse_settings
from ztom.errors import ChainError, ConfigError, EvaluationError, ZtomError
from ztom.evaluation.suites.read import load_suite
from ztom.io.yaml import dump_yaml, parse_yaml, read_yaml
from ztom.search.config_files import load_config, read_content

ROOT = Path(__file__).resolve().parents[3]


def deploy(file: Path) -> None:
    deploy_command("v", "a", wishes={}, plan=file, options={}, wait_s=0, server="http://x")


def apply(file: Path) -> None:
    apply_command(file, yes=True, prune=False, server="http://127.0.0.1:9")


#: Every reader of a file that a person writes, its error, and a text with a key twice in line 3.
READERS: dict[str, tuple[Callable[[Path], object], type[ZtomError], str, str]] = {
    "chain.yaml": (
        read_chain_file,
        ChainError,
        "checkpoints: [a, b]\ntopology: sequence\ncheckpoints: [c, d]\n",
        "checkpoints",
    ),
    "endpoints.yaml": (
        apply,
        ConfigError,
        "endpoints:\n  support: {stable: {path: one}}\n  support: {stable: {path: two}}\n",
        "support",
    ),
    "plan.yaml": (deploy, ConfigError, "steps: []\nchecks: {}\nsteps: [1]\n", "steps"),
    "search.yaml": (load_config, ConfigError, "chain: c\nseed: 1\nseed: 2\n", "seed"),
    "suite.yaml": (
        lambda file: load_suite(file.parent),
        EvaluationError,
        "name: a\nfloor: 0.9\nfloor: 0.1\n",
        "floor",
    ),
}


@pytest.mark.abuse(115)
@pytest.mark.parametrize("name", READERS)
def test_a_key_twice_is_refused_by_name_and_line(name: str, tmp_path: Path) -> None:
    read, kind, text, key = READERS[name]
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(kind, match=rf"{name}, line 3: not usable YAML: a key twice \({key}\)"):
        read(file)


@pytest.mark.parametrize("name", READERS)
def test_an_alias_is_refused(name: str, tmp_path: Path) -> None:
    read, kind, _, _ = READERS[name]
    (tmp_path / name).write_text("a: &x [1]\nb: *x\n")
    with pytest.raises(kind, match=f"{name}, line 2: not usable YAML: an alias"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "line"),
    [("a: 1\n'a': 2", 2), ("yes: 1\ntrue: 2", 2), ("b:\n  a: 1\n  a: 1", 3), ("? [a]\n? [a]", 2)],
)
def test_keys_are_equal_however_they_are_written(text: str, line: int) -> None:
    with pytest.raises(ConfigError, match=f"the text, line {line}: .*a key twice"):
        parse_yaml(text, source="the text")


def test_what_is_no_yaml_names_the_file(tmp_path: Path) -> None:
    assert parse_yaml("a: 1\nb: [x, 2.5, true, null]", source="t") == {
        "a": 1,
        "b": ["x", 2.5, True, None],
    }
    for content in (b"\xff", b"a: [", b"a: .nan", b"a: 2026-11-21", b"[" * 5000, b"!!set {a}"):
        (tmp_path / "f.yaml").write_bytes(content)
        with pytest.raises(ChainError, match=r"f\.yaml"):
            read_yaml(tmp_path / "f.yaml", kind=ChainError)
    with pytest.raises(ChainError, match=r"g\.yaml cannot be read"):
        read_yaml(tmp_path / "g.yaml", kind=ChainError)


def test_what_is_written_can_be_read_again() -> None:
    shared = ["a", "b"]
    content = {"labels": shared, "again": [shared, shared], "error": {"b": 1, "a": 2.5}}
    assert parse_yaml(dump_yaml(content), source="t") == content
    assert list(parse_yaml(dump_yaml(content), source="t")["error"]) == ["b", "a"]


def test_values_of_options_are_read_the_same_way(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("seed: 1\n")
    for text in ("{a: 1, a: 2}", "[&x 1, *x]", "["):
        with pytest.raises(ConfigError, match="engine"):
            read_content(tmp_path / "s.yaml", [f"engine={text}"])
        with pytest.raises(ConfigError, match="engine"):
            parse_settings([f"engine={text}"])


@pytest.mark.parametrize("package", ["ztom", "tune_search", "serve_apps"])
def test_no_file_is_read_past_the_strict_reader(package: str) -> None:
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and "load" in node.attr:
                owner = node.value.id if isinstance(node.value, ast.Name) else ""
                assert owner != "yaml" or path.name == "yaml.py", f"{path}: yaml.{node.attr}"
