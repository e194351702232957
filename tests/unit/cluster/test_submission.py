"""A search packed for a cluster: what travels, what stays, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster import submission
from cluster.submission import FILE, Submission, pack_search
from ztom.errors import ConfigError
from ztom.io.yaml import dump_yaml, read_yaml

LEDGER = "postgresql+psycopg://ztom@10.0.0.5/ztom"
STORAGE = "gs://team-models/ztom"
CHAIN = ["gs://team-models/base", "gs://team-models/first"]
CONTENT: dict[str, Any] = {
    "chain": {"checkpoints": CHAIN},
    "stimuli": "data/search.jsonl",
    "holdout": "more/search.jsonl",
    "error": "own:error",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for folder in ("data", "more"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "search.jsonl").write_text(folder)
    (tmp_path / "own.py").write_text("def error(x): ...\n")
    (tmp_path / "job").mkdir()
    return tmp_path


def pack(home: Path, *, storage: str | None = STORAGE, **changes: Any) -> Submission:
    file = home / "support.yaml"
    file.write_text(dump_yaml({**CONTENT, **changes}))
    return pack_search(file, [], home / "job", ledger=LEDGER, storage=storage)


def test_data_and_own_code_travel_and_checkpoints_stay(home: Path) -> None:
    packed = pack(home)
    content = read_yaml(packed.folder / FILE, json_only=False)
    assert packed.name == content["name"] == "support"
    assert content["output"] == packed.output == f"{STORAGE}/runs/support"
    assert content["ledger"] == LEDGER
    assert [member["reference"] for member in content["chain"]["checkpoints"]] == CHAIN
    assert (packed.folder / content["stimuli"]).read_text() == "data"
    assert (packed.folder / content["holdout"]).read_text() == "more"  # of the same name
    assert (packed.folder / "own.py").exists()
    assert packed.questions.places == tuple(CHAIN)
    assert packed.questions.ledger == LEDGER
    assert packed.questions.shared is None


def test_a_chain_file_is_written_out(home: Path) -> None:
    (home / "chain.yaml").write_text(dump_yaml({"checkpoints": ["base", "gs://b-x/c"]}))
    (home / "base").mkdir()
    packed = pack(home, chain="chain.yaml")
    assert packed.questions.places == (str(home / "base"), "gs://b-x/c")


def test_data_in_a_bucket_is_looked_for_from_there(home: Path) -> None:
    guardrail = {"name": "code", "stimuli": "data/search.jsonl", "error": "rouge_l"}
    packed = pack(home, guardrails=[guardrail])
    content = read_yaml(packed.folder / FILE, json_only=False)
    assert (packed.folder / content["guardrails"][0]["stimuli"]).read_text() == "data"


def test_a_folder_that_all_nodes_share_is_looked_at(home: Path) -> None:
    packed = pack(home, output="/shared/runs/support")
    assert packed.questions.shared == packed.output == "/shared/runs/support"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"output": "runs/here"}, "output would be on one node"),
        ({"stimuli": "data/gone.jsonl"}, "a file of the search is not there"),
        ({"budgett": {}}, "budgett"),
    ],
)
def test_what_would_fail_there_is_refused_here(
    home: Path, changes: dict[str, Any], error: str
) -> None:
    with pytest.raises(ConfigError, match=error):
        pack(home, **changes)


def test_without_storage_or_ledger_it_says_what_to_give(home: Path) -> None:
    with pytest.raises(ConfigError, match=r"none is named.*Give --storage"):
        pack(home, storage=None)
    with pytest.raises(ConfigError, match=r"ledger would be on one node.*Give --ledger"):
        pack_search(home / "support.yaml", [], home / "job", ledger="ledger.db", storage=STORAGE)


def test_too_much_does_not_travel(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "MOST_BYTES", 3)
    with pytest.raises(ConfigError, match="too much would travel"):
        pack(home)
