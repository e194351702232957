"""A command that has little to do imports little: counted in modules, not in seconds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from command_line import every_command

import ztom.evaluation

#: Not one of these is needed to print help.
HEAVY_FOR_HELP = {
    *("torch", "transformers", "ray", "vllm", "numpy", "scipy", "sklearn", "optuna", "pydantic"),
    *("sqlalchemy", "alembic", "httpx", "fastapi", "fsspec", "jinja2", "yaml", "lm_eval"),
    *("datasets", "sentence_transformers", "safetensors", "cryptography"),
}
#: To refuse a path or a misspelt key, a file has to be read and checked.
HEAVY_TO_REFUSE = HEAVY_FOR_HELP - {"numpy", "pydantic", "yaml", "jinja2"}
#: Modules that are there after a command, of those that it could have had before: as a bound.
MOST_FOR_HELP, MOST_TO_REFUSE = 550, 800

SUITES = Path(ztom.evaluation.__file__).with_name("examples")

_RUN = """
import sys
from ztom.cli.main import main
sys.argv[0] = "ztom"
try:
    main()
except SystemExit as end:
    status = end.code
print(status, *sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
print(len(sys.modules), file=sys.stderr)
"""


def run(arguments: Sequence[object], folder: Path) -> tuple[int, set[str], int, str]:
    """Status, packages, how many modules, and what was said, of a command in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    *said, packages, count = done.stderr.splitlines()
    status, *names = packages.split()
    return int(status), set(names), int(count), "\n".join(said)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "typo.yaml").write_text(
        "chain: c.yaml\nstimuli: s.jsonl\nerror: rouge_l\nbudgte: {evaluations: 3}\n"
    )
    (tmp_path / "missing.yaml").write_text(
        "chain: chain.yaml\nstimuli: s.jsonl\nerror: rouge_l\nbudget: {evaluations: 3}\n"
    )
    (tmp_path / "chain.yaml").write_text("checkpoints: [a, b]\n")
    (tmp_path / "there.yaml").write_text("checkpoints: [., .]\n")
    (tmp_path / "typo-chain.yaml").write_text("checkpoint: [a, b]\n")
    return tmp_path


@pytest.mark.parametrize(
    "name", ["", "search", "gate", "eval", "suite new", "deploy", "blend", "up", "serve", "log"]
)
def test_help_imports_nothing_heavy(name: str, tmp_path: Path) -> None:
    status, packages, count, said = run([*name.split(), "--help"], tmp_path)
    assert (status, said) == (0, "")
    typers = {"pydantic"}  # it reads the values of options with it
    assert packages & HEAVY_FOR_HELP - typers == set()
    assert count < MOST_FOR_HELP


def test_the_application_imports_nothing_heavy_for_any_command() -> None:
    """Help is made of what the application knows once it is put together."""
    code = (
        "import sys, typer; from ztom.cli.main import app; typer.main.get_command(app);"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = set(done.stdout.split())
    assert {name.partition(".")[0] for name in names} & HEAVY_FOR_HELP == set()
    assert not any(name.startswith("ztom.cli.actions.") for name in names)
    assert len(list(every_command())) > 30


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        ("search nothing.yaml", 3, "nothing.yaml cannot be read"),
        ("search typo.yaml", 3, "budgte: no such key (did you mean budget?)"),
        ("search typo.yaml --project p --server http://127.0.0.1:9", 3, "budgte"),
        ("blend nothing.yaml --factors 0 --output v", 3, "nothing.yaml cannot be read"),
        ("blend typo-chain.yaml --factors 0 --output v", 3, "checkpoint"),
        ("blend chain.yaml --factors x --output v", 3, "the factors are not numbers"),
        ("blend chain.yaml --factors 0 --output gs://bucket/v", 3, "a ledger that is given"),
        ("search missing.yaml", 3, "there is no checkpoint folder at"),
        ("search missing.yaml --set chain=there.yaml", 3, "s.jsonl does not exist"),
        ("blend chain.yaml --factors 0 --output v", 3, "there is no checkpoint folder at"),
        ("inspect nothing.yaml", 3, "nothing.yaml cannot be read"),
        ("inspect chain.yaml", 3, "there is no checkpoint folder at"),
        ("verify nothing", 3, "nothing is not a variant"),
        ("serve nothing", 3, "nothing is not a variant"),
        ("log nothing.db", 3, "there is no ledger"),
        ("audit verify nothing.db", 3, "there is no ledger"),
        ("eval model", 3, "there is nothing to run"),
        ("eval model --suite nothing", 3, "nothing"),
        ("eval model --suite nothing --out abfs://bucket/x", 3, "--out is an address"),
        (f"eval nothing --suite {SUITES}", 3, "there is no checkpoint folder at nothing"),
        (f"eval . --base no.tar --suite {SUITES}", 3, "there is no archive at no.tar"),
        (f"eval . --suite {SUITES} --dtype int3", 3, "dtype"),
        ("gate", 3, "there is no candidate"),
        ("gate --candidate a --candidate-run b", 3, "there are --candidate and --candidate-run"),
        ("gate --candidate-run nothing --suites nothing", 3, "nothing"),
        (f"gate --candidate nothing --first --suites {SUITES}", 3, "there is no checkpoint folder"),
        (f"gate --candidate . --champion no.tar --suites {SUITES}", 3, "there is no archive"),
        (f"gate --candidate . --first --suites {SUITES} --dtype int3", 3, "dtype"),
        ("suite check nothing", 3, "nothing"),
        ("deploy v --alias a --set x", 3, "an option is not KEY=VALUE"),
        ("status", 3, "no server is named"),
        ("up --set token_ours=1", 3, "token_ours"),
    ],
)
def test_what_is_refused_is_refused_before_anything_heavy_is_imported(
    folder: Path, monkeypatch: pytest.MonkeyPatch, line: str, status: int, message: str
) -> None:
    monkeypatch.delenv("ZTOM_SERVER", raising=False)
    ended, packages, count, said = run(line.split(), folder)
    assert ended == status, said
    assert message in said
    assert packages & HEAVY_TO_REFUSE == set()
    assert count < MOST_TO_REFUSE


def test_a_ray_job_refuses_as_early(folder: Path) -> None:
    code = (
        "import sys; from tune_search.__main__ import main; status = main(['typo.yaml']);"
        "print(status, *{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder
    )
    status, *packages = done.stdout.split()
    assert (status, "did you mean budget?" in done.stderr) == ("3", True)
    assert set(packages) & HEAVY_TO_REFUSE == set()
