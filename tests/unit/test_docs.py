"""What README and documentation say is true: blocks, links, trees, versions."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import json
import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from documentation import PAGES, REPOSITORY, Block, anchors, blocks, commands, links
from ray.serve.schema import ServeDeploySchema
from typer.main import get_command

import ztom
from serve_apps.control_plane.config import ServerConfig
from serve_apps.endpoints.declaration import WantedEndpoint
from ztom.blending.chain_file import ChainConfig
from ztom.client import Client
from ztom.client.endpoints import EndpointCalls
from ztom.client.verdicts import VerdictCalls
from ztom.drift.config import MonitorConfig
from ztom.evaluation.suites.suite import SuiteConfig
from ztom.rollout.plan import parse_plan
from ztom.search.config_files import parse_config

LANGUAGES = {"", "console", "python", "toml", "yaml"}
#: Commands that are not ours, and that no test can run here.
OTHERS = {
    *("curl", "export", "pip", "make", "python", ".venv/bin/python", "cd"),
    *("buildah", "gcloud", "helm", "kubectl", "terraform"),
}
OURS = {"ztom", ".venv/bin/ztom"}
FIRST_PARTY = {"ztom", "tune_search", "serve_apps", "cluster"}
SMALLEST_SEARCH = {"chain": {"checkpoints": ["a", "b"]}, "stimuli": "s", "error": "rouge_l"}


def test_every_block_is_of_a_language_that_is_checked() -> None:
    assert {block.language for block in blocks()} <= LANGUAGES
    assert len(blocks("console")) >= 8
    assert len(blocks("python")) >= 4


# --- console


@pytest.mark.parametrize("block", blocks("console"), ids=str)
def test_commands_exist_with_their_options(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = commands(block)
    assert lines, "a console block has commands, each after a dollar sign"
    for words in lines:
        if words[0] == "export":  # options may come from there
            name, _, value = words[1].partition("=")
            monkeypatch.setenv(name, value)
        elif words[0] in OURS:
            parse(words[1:])
        elif words[0] == "make":
            assert f"\n{words[1]}:" in (REPOSITORY / "Makefile").read_text(), words
        elif words[0] == "pip":
            check_extras(words)
        elif words[0].startswith(".ci/") or words[0] in ("python", ".venv/bin/python"):
            assert all((REPOSITORY / w).exists() for w in words if "/" in w.split("=")[0]), words
        else:
            assert words[0] in OTHERS, words


def parse(words: list[str]) -> None:
    """Parse a command line without running it: an unknown command or option raises."""
    command: Any = get_command(importlib.import_module("ztom.cli.main").app)
    name, rest, parent = "ztom", words, None
    while True:
        context = command.make_context(name, list(rest), parent=parent)
        rest = [*getattr(context, "_protected_args", []), *context.args]
        if not hasattr(command, "commands") or not rest:
            return
        name, parent = rest[0], context
        assert name in command.commands, f"there is no command {' '.join(words)}"
        command, rest = command.commands[name], rest[1:]


@pytest.mark.parametrize("words", [["blend", "c.yaml", "--factor", "1"], ["merge"], ["blend"]])
def test_a_command_that_is_wrong_is_noticed(words: list[str]) -> None:
    with pytest.raises(Exception, match="(?i)no such option|no command|missing"):
        parse(words)


def check_extras(words: list[str]) -> None:
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    for named in re.findall(r"ztom\[([\w,-]+)\]", " ".join(words)):
        assert set(named.split(",")) <= set(extras["optional-dependencies"]), words


def test_inline_commands_exist() -> None:
    """Of commands in the middle of a sentence: their words, up to the first placeholder."""
    tree: Any = get_command(importlib.import_module("ztom.cli.main").app)
    for page in PAGES:
        for text in re.findall(r"`ztom ((?:[a-z-]+ ?)+)", page.read_text(encoding="utf-8")):
            command = tree
            for word in text.split():
                if word.startswith("-") or not hasattr(command, "commands"):
                    break
                assert word in command.commands, f"{page.name}: ztom {text}"
                command = command.commands[word]


def test_the_page_of_commands_has_all_of_them() -> None:
    tree: Any = get_command(importlib.import_module("ztom.cli.main").app)
    page = (REPOSITORY / "docs" / "commands.md").read_text(encoding="utf-8")
    for name, command in tree.commands.items():
        assert command.hidden or f"`ztom {name}" in page, f"docs/commands.md lacks ztom {name}"


# --- Python


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_uses_what_there_is(block: Block) -> None:
    if block.text.startswith(">>>"):
        test = doctest.DocTestParser().get_doctest(block.text, {}, str(block), block.page, 0)
        assert doctest.DocTestRunner().run(test).failed == 0
        return
    tree = ast.parse(block.text)
    values = imported(tree)
    for node in ast.walk(tree):
        if isinstance(node, (ast.With, ast.Assign)):
            values |= clients(node, values)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            bind(node, values)
    if not values and "openai" not in block.text:  # it uses nothing of this project: it runs
        exec(compile(tree, str(block), "exec"), {})


@pytest.mark.parametrize(
    "text",
    [
        "import ztom\nztom.blend(chain, [0.1], 'v', dtyp='float32')",
        "import ztom\nztom.merge(chain)",
        "from ztom import Kunde",
        "from ztom.client import Client\nwith Client('x') as c:\n    c.endpoints.promote()",
    ],
)
def test_python_that_is_wrong_is_noticed(text: str) -> None:
    with pytest.raises((TypeError, AttributeError)):
        test_python_uses_what_there_is(Block("page", 1, "python", "", text))


def imported(tree: ast.Module) -> dict[str, Any]:
    """What a block imports of this project, by the name that it has there."""
    values: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                values[alias.asname or alias.name] = importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            for alias in node.names:
                values[alias.asname or alias.name] = getattr(module, alias.name)
    return {
        name: value
        for name, value in values.items()
        if (getattr(value, "__module__", None) or value.__name__).partition(".")[0] in FIRST_PARTY
    }


def clients(node: ast.With | ast.Assign, values: dict[str, Any]) -> dict[str, Any]:
    """Names that a block gives to clients."""
    pairs = (
        [(item.context_expr, item.optional_vars) for item in node.items]
        if isinstance(node, ast.With)
        else [(node.value, target) for target in node.targets]
    )
    return {
        target.id: Client
        for value, target in pairs
        if isinstance(target, ast.Name) and isinstance(value, ast.Call)
        if resolve(value.func, values) in (Client, Client.login)
    }


def resolve(node: ast.expr, values: dict[str, Any]) -> Any:
    """What a name or an attribute means; None where it is not of this project."""
    if isinstance(node, ast.Name):
        return values.get(node.id)
    if not isinstance(node, ast.Attribute):
        return None
    owner = resolve(node.value, values)
    if owner is Client and node.attr in ("endpoints", "verdicts"):
        return {"endpoints": EndpointCalls, "verdicts": VerdictCalls}[node.attr]
    if owner is None or inspect.isfunction(owner):
        return None
    return getattr(owner, node.attr)  # an attribute that there is not raises


def bind(call: ast.Call, values: dict[str, Any]) -> None:
    """Bind a call's arguments, where it is one of this project's functions."""
    function = resolve(call.func, values)
    if function is None or any(keyword.arg is None for keyword in call.keywords):
        return
    bound_to_client = isinstance(call.func, ast.Attribute) and inspect.isfunction(function)
    owner = resolve(call.func.value, values) if isinstance(call.func, ast.Attribute) else None
    itself = [None] if bound_to_client and inspect.isclass(owner) else []
    arguments = [*itself, *[None for _ in call.args]]
    named = {str(keyword.arg): None for keyword in call.keywords}
    inspect.signature(function).bind(*arguments, **named)


# --- YAML and TOML


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_toml_is_valid(block: Block) -> None:
    assert tomllib.loads(block.text)


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_files_are_valid(block: Block) -> None:
    content = yaml.safe_load(block.text)
    match block.title.removeprefix("part of "):
        case "search.yaml":
            base = SMALLEST_SEARCH if block.title.startswith("part of ") else {}
            parse_config({**base, **content})
        case "chain.yaml":
            ChainConfig.model_validate(content)
        case "suite.yaml":
            SuiteConfig.model_validate(content)
        case "monitor.yaml":
            MonitorConfig.model_validate(content)
        case "plan.yaml":
            parse_plan(content)
        case "endpoints.yaml":
            for endpoint in content["endpoints"].values():
                WantedEndpoint.model_validate(without_verdicts(endpoint))
        case "server.yaml":
            for application in ServeDeploySchema.model_validate(content).applications:
                ServerConfig(**application.args)
        case other:
            pytest.fail(f'a YAML block has a title that says what it is, not "{other}"')


def without_verdicts(value: Any) -> Any:
    """`ztom apply` puts a verdict's document in the place of its file."""
    if isinstance(value, dict):
        return {key: without_verdicts(item) for key, item in value.items() if key != "verdict"}
    return [without_verdicts(item) for item in value] if isinstance(value, list) else value


# --- pages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_is_one_screenful_and_a_door() -> None:
    lines = (REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 200
    assert any(line.startswith("$ ") for line in lines[:40])
    linked = {link.partition("#")[0] for link in links(REPOSITORY / "README.md")}
    pages = {f"docs/{page.name}" for page in (REPOSITORY / "docs").glob("*.md")}
    assert pages - {"docs/index.md"} <= linked


def test_the_tree_in_the_readme_is_true() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    tree = re.search(r"```\n(ztom/.*?)```", text, re.DOTALL)
    assert tree, "the README shows the tree"
    named = [line.split()[0] for line in tree[1].splitlines() if line.strip()]
    parent = Path()
    for line, name in zip([x for x in tree[1].splitlines() if x.strip()], named, strict=True):
        parent = parent if line.startswith(" ") else Path(name)
        path = parent / name if line.startswith(" ") else Path(name)
        assert (REPOSITORY / path).exists(), path
    rooms = {p.name for p in (REPOSITORY / "ztom").iterdir() if (p / "__init__.py").exists()}
    assert {f"{room}/" for room in rooms} <= set(named)


def test_every_page_is_in_the_site_and_every_module_of_the_api_exists() -> None:
    nav = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    docs = REPOSITORY / "docs"
    pages = {page.relative_to(docs).as_posix() for page in docs.rglob("*.md")}
    assert set(re.findall(r"[\w/-]+\.md", json.dumps(nav))) == pages
    for page in (docs / "api").glob("*.md"):
        for name in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            module, _, member = name.rpartition(".")
            if member[:1].isupper():
                assert hasattr(importlib.import_module(module), member), name
            else:
                importlib.import_module(name)


def test_versions_agree() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == ztom.__version__
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert citation["license"] == project["license"]
    workflow = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text())
    job = workflow["jobs"]["ci"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert project["requires-python"] == ">=3.11,<3.14"
    assert any(step.get("run") == ".ci/run" for step in job["steps"])


def test_the_packages_are_typed() -> None:
    for package in ("ztom", "tune_search", "serve_apps", "cluster"):
        assert (REPOSITORY / package / "py.typed").is_file()


@pytest.mark.parametrize("script", ["refresh-bring-table.py", "refresh-abuse-table.py"])
def test_a_table_that_is_made_of_marks_is_what_the_tests_bear(script: str) -> None:
    """Write it anew with the script in ``.ci``."""
    made = runpy.run_path(str(REPOSITORY / ".ci" / script))
    assert made["PAGE"].read_text() == made["page"]()
