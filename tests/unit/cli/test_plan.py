"""``ztom plan``: what is computed of a chain's files, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from command_line import ztom
from toys import make_plain_chain


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    paths = make_plain_chain(folder, members=3)
    file = folder / "chain.yaml"
    file.write_text(yaml.safe_dump({"checkpoints": [str(path) for path in paths]}))
    return file


def test_a_plan_for_a_described_machine(chain: Path) -> None:
    done = ztom("plan", chain, "--gpu", "T4", "--memory-gb", 30, "--price", 2, "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (plan["machine"], plan["computed"], plan["split"]) == ("1 x T4", True, 1)
    assert [row["placement"] for row in plan["rows"]] == ["device", "host", "file"]
    assert plan["rows"][0]["fits"]
    assert plan["rows"][2]["trial_s"] is None  # nobody said how fast files are
    assert plan["search_cost"] == pytest.approx(2 * plan["search_hours"])
    assert plan["pristine_bytes"] == 3 * plan["weights"]


def test_the_text_says_that_it_is_computed(chain: Path) -> None:
    done = ztom("plan", chain, "--machine", "g2-standard-24", "--file-gb-s", 0.5)
    assert done.returncode == 0, done.stderr
    assert "g2-standard-24: computed from sizes and bandwidths, not measured" in done.stdout
    assert "2 engines side by side (an engine a GPU)" in done.stdout
    assert " hours\n" in done.stdout  # without a price there is no cost


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--machine", "g3"), ("got g3", "g2-standard-24")),
        (("--gpu", "X9", "--memory-gb", 10), ("got X9", "L4")),
        ((), ("a plan is for a machine", "--memory-gb")),
        (("--gpu", "T4", "--memory-gb", 30, "--dtype", "bfloat16"), ("T4 does not compute",)),
    ],
)
def test_what_cannot_be_planned(chain: Path, options, words) -> None:
    done = ztom("plan", chain, *options)
    assert done.returncode != 0
    for word in words:
        assert word in done.stderr
