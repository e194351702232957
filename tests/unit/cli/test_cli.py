"""The command line: what a user types, and what comes back."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from command_line import ztom
from toys import make_plain_chain

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def chain_file(tmp_path: Path) -> Path:
    make_plain_chain(tmp_path, dtype=torch.bfloat16)
    file = tmp_path / "chain.yaml"
    file.write_text(yaml.safe_dump({"checkpoints": ["00", "01", "02"]}))
    return file


def test_blend_inspect_and_verify(chain_file: Path, tmp_path: Path) -> None:
    done = ztom("blend", chain_file, "--factors", "0.1,-0.05", "--output", tmp_path / "v")
    assert done.returncode == 0, done.stderr
    assert "realised over intended step" in done.stdout
    checked = ztom("verify", tmp_path / "v", "--share", "1")
    assert checked.returncode == 0, checked.stderr
    assert "7 of 7 tensors" in " ".join(checked.stdout.split())
    shown = ztom("inspect", chain_file, "--limit", "0.001")
    assert shown.returncode == 0, shown.stderr
    assert "low: deploy in float32" in shown.stdout
    as_json = json.loads(ztom("inspect", chain_file, "--json").stdout)
    assert len(as_json["steps"]) == 2
    (tmp_path / "v" / "config.json").write_text("{}")
    refused = ztom("verify", tmp_path / "v")
    assert refused.returncode == 3
    assert "changed config.json" in refused.stderr


def test_a_blend_takes_factors_of_groups(chain_file: Path, tmp_path: Path) -> None:
    """Set by hand, shown with labels, and derived again by `ztom verify`."""
    factors = ("--factors", "-1,0,0,0.1,0,-0.2", "--output", tmp_path / "v", "--json")
    done = ztom("blend", chain_file, "--groups", "{layers: 2}", *factors)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["factors"][3] == {"step": "01 -> 02: layer 0", "factor": 0.1}
    checked = ztom("verify", tmp_path / "v", "--share", "1")
    assert "7 of 7 tensors" in " ".join(checked.stdout.split()), checked.stderr
    page = ztom("audit", "show", "v", "--ledger", tmp_path / "ledger.db", "--html").stdout
    assert "layer 0 +0.1, layer 1 +0, rest -0.2" in page


def test_a_blend_is_on_record(chain_file: Path, tmp_path: Path) -> None:
    out, ledger = tmp_path / "out", tmp_path / "out" / "ledger.db"
    for name, factors in (("v", "0.1,-0.05"), ("w", "0.2,0")):
        assert (
            ztom("blend", chain_file, "--factors", factors, "--output", out / name).returncode == 0
        )
    logged = [json.loads(line) for line in ztom("log", ledger, "--json").stdout.splitlines()]
    assert [row["kind"] for row in logged] == ["variant", "variant", "audit", "audit"]
    assert "variant.blend" in ztom("log", ledger).stdout
    head, key = tmp_path / "head.json", tmp_path / "key"
    signed = ztom("audit", "sign", ledger, "--output", head, "--key", key)
    assert signed.returncode == 0, signed.stderr
    checked = ztom("audit", "verify", ledger, "--head", head)
    assert checked.returncode == 0, checked.stderr
    first, *rest = checked.stdout.splitlines()
    assert first == "OK: 2 rows follow from each other, row 2 is the one that was signed"
    assert rest == ["not seen: whether the head was signed with your key (give --public-key)"]
    assert "not seen: whether rows were cut off" in ztom("audit", "verify", ledger).stdout
    by_name = json.loads(ztom("audit", "show", "w", "--ledger", ledger).stdout)
    assert by_name["factors"] == [0.2, 0.0]
    page = ztom("audit", "show", "v", "--ledger", ledger, "--html").stdout
    assert page.startswith("<!DOCTYPE html>")
    for text in (by_name["checkpoints"][0]["sha256"], "variant.blend", "+0.1", "-0.05"):
        assert text in page
    assert re.search(r"variant:[0-9a-f]{12} w\b", ztom("log", ledger).stdout), (
        "names, not ids alone"
    )
    shown = json.loads(ztom("audit", "show", out / "v", "--ledger", ledger).stdout)
    assert shown["factors"] == [0.1, -0.05]
    assert len(shown["checkpoints"]) == 3
    assert [event["what"] for event in shown["events"]] == ["variant.blend"]
    shutil.rmtree(out / "w")
    shutil.copytree(out / "v", out / "smuggled")
    checked = ztom("audit", "verify", ledger)
    assert checked.returncode == 1
    assert checked.stdout.startswith("BAD: 2 of what was checked does not hold\n")
    assert "smuggled is a variant that is not on record" in " ".join(checked.stdout.split())


def test_a_ledger_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    done = ztom("log", tmp_path / "ledger.db")
    assert done.returncode == 3
    assert "there is no ledger" in done.stderr
    assert not (tmp_path / "ledger.db").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--factors", "0.1"], "wrong number of scaling factors"),
        (["--factors", "0.1,x"], "not numbers"),
        (["--factors", "0.1,nan"], "not a finite number"),
        (["--factors", "0,0", "--dtype", "int4"], "unknown dtype"),
        (["--factors", "0,0", "--adapter"], "only a chain of adapters"),
        (["--factors", "0", "--groups", "kind"], "groups are kinds, {layers: N}"),
    ],
)
def test_wrong_blends_end_with_a_message(chain_file, tmp_path, arguments, message) -> None:
    done = ztom("blend", chain_file, "--output", tmp_path / "v", *arguments)
    assert done.returncode == 3
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "v").exists()


def test_a_missing_chain_says_so(tmp_path: Path) -> None:
    done = ztom("inspect", tmp_path / "nothing.yaml")
    assert done.returncode == 3
    assert "cannot be read" in done.stderr


def test_the_example_configuration_is_printed() -> None:
    done = ztom("search", "--example")
    assert done.returncode == 0
    assert "scaling_factor_limit" in yaml.safe_load(done.stdout)
    help_text = ztom("search", "--help").stdout
    assert "Usage: ztom search" in help_text


def test_serving_what_is_no_variant_is_refused(tmp_path: Path) -> None:
    done = ztom("serve", tmp_path)
    assert done.returncode == 3
    assert "not a variant" in done.stderr
