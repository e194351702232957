"""Training real, very small chains: what comes out loads, blends and answers."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from ztom.blending.chain import load_chain
from ztom.demo.chains import make_chat_chain, make_stdlib_chain
from ztom.demo.model import ModelSize
from ztom.demo.scenario import ChatPlan, StdlibPlan
from ztom.demo.train import Pair, TrainSettings, batch_loss, encode
from ztom.errors import ConfigError, LeakageError, StimuliError
from ztom.settings import Settings
from ztom.stimuli.files import read_stimuli

SIZE = ModelSize(vocabulary=600, hidden=32, intermediate=64, layers=1, heads=2)
PLAN = StdlibPlan(
    per_topic=30,
    tools=10,
    base_epochs=2,
    epochs=1,
    base_rate=5e-3,
    rate=2e-3,
    search_size=8,
    holdout_size=12,
    size=SIZE,
    training=TrainSettings(threads=1),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    seen = []
    folder = tmp_path_factory.mktemp("demo") / "chain"
    return make_stdlib_chain(folder, plan=PLAN, on_progress=seen.append), seen


@pytest.fixture(scope="module")
def latest(made):
    folder = made[0].checkpoints[-1]
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def test_training_reports_progress_and_learns(made):
    chain, seen = made
    assert not chain.cached
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert seen[-1].done == pytest.approx(1.0)
    base = [p.loss for p in seen if p.stage == "00-base"]
    assert base[-1] < base[0] - 1.0
    assert len({p.stage for p in seen}) == len(chain.checkpoints) == 5


def test_the_chain_opens_and_every_step_changed_the_weights(made):
    chain = load_chain(made[0].chain_file, settings=Settings())
    assert chain.transitions == 4
    weights = [load_file(folder / "model.safetensors") for folder in made[0].checkpoints]
    assert sum(tensor.numel() for tensor in weights[0].values()) == made[0].parameters
    for before, after in zip(weights, weights[1:], strict=False):
        assert all(not torch.equal(before[name], after[name]) for name in before)


def test_the_stimuli_read_back(made):
    search, holdout = read_stimuli(made[0].search_file), read_stimuli(made[0].holdout_file)
    assert (len(search), len(holdout)) == (8, 12)
    assert all(stimulus.group == stimulus.id for stimulus in search)


def test_training_scoring_and_chat_see_the_same_tokens(latest):
    model, tokenizer = latest
    [row] = encode(tokenizer, [Pair("What is re?", "A module.")], max_tokens=64)
    turns = [{"role": "user", "content": "What is re?"}]
    asked = tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
    turns.append({"role": "assistant", "content": "A module."})
    whole = tokenizer.apply_chat_template(turns)["input_ids"]
    assert list(row.ids) == whole
    assert list(row.ids[: row.answer_start]) == asked
    assert row.ids.count(tokenizer.bos_token_id) == 1
    assert row.ids[-1] == tokenizer.eos_token_id == model.generation_config.eos_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id


def test_the_loss_is_that_of_transformers_for_the_answers_tokens(latest):
    model, tokenizer = latest
    pairs = [Pair("What is re?", "A module."), Pair("Explain os.", "Something longer than that.")]
    rows = encode(tokenizer, pairs, max_tokens=64)
    with torch.no_grad():
        ours = batch_loss(model, rows).item()
        total = sum(
            model(
                input_ids=torch.tensor([row.ids]),
                labels=torch.tensor(
                    [[-100] * row.answer_start + list(row.ids[row.answer_start :])]
                ),
            ).loss.item()
            * (len(row.ids) - row.answer_start)
            for row in rows
        )
    assert ours == pytest.approx(
        total / sum(len(row.ids) - row.answer_start for row in rows), abs=1e-5
    )


def test_a_question_that_leaves_no_room_is_refused(latest):
    with pytest.raises(StimuliError, match="leaves no room"):
        encode(latest[1], [Pair("word " * 100, "answer")], max_tokens=32)


def test_a_second_call_trains_nothing(made):
    again = make_stdlib_chain(
        made[0].folder, plan=PLAN, on_progress=lambda _: pytest.fail("it trains")
    )
    assert again == replace(made[0], cached=True)


def test_the_same_seed_gives_the_same_chain_and_another_plan_replaces_it(made, tmp_path):
    other = make_stdlib_chain(tmp_path / "chain", plan=PLAN)
    ours, theirs = (load_file(c.checkpoints[-1] / "model.safetensors") for c in (made[0], other))
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in ours)
    seeded = replace(PLAN, training=TrainSettings(seed=1, threads=1))
    assert not make_stdlib_chain(tmp_path / "chain", plan=seeded).cached
    replaced = load_file(other.checkpoints[-1] / "model.safetensors")
    assert not torch.allclose(replaced["model.norm.weight"], ours["model.norm.weight"])


def test_killed_while_training_it_is_absent_and_starts_clean(tmp_path):
    script = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        sys.path[:0] = ["tests/integration", "tests/helpers"]
        from test_demo_chain import PLAN
        from ztom.demo.chains import make_stdlib_chain

        def die(progress):
            if progress.stage == "02-data":
                os.kill(os.getpid(), signal.SIGKILL)

        make_stdlib_chain(Path(sys.argv[1]), plan=PLAN, on_progress=die)
    """)
    folder = tmp_path / "chain"
    root = os.path.join(os.path.dirname(__file__), "..", "..")
    killed = subprocess.run([sys.executable, "-c", script, str(folder)], cwd=root, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not folder.exists()
    assert list(tmp_path.glob(".chain.partial-*/chain/01-text"))
    assert not make_stdlib_chain(folder, plan=PLAN).cached
    assert not list(tmp_path.glob(".chain.partial-*"))


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"thesis\.tex"):
        make_stdlib_chain(tmp_path, plan=PLAN)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def _dialogues(folder, *, holdout_start=1000):
    for kind, start, count in (("train", 0, 60), ("search", 500, 4), ("holdout", holdout_start, 4)):
        rows = [
            {
                "id": f"{kind}-{i}",
                "prompt": f"Doctor, number {i} hurts",
                "expected": f"Rest {i} days.",
            }
            for i in range(start, start + count)
        ]
        (folder / f"{kind}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_chain_from_a_folder_of_dialogues(tmp_path):
    _dialogues(tmp_path)
    plan = ChatPlan(iterations=2, base_epochs=1, epochs=1, size=SIZE, training=PLAN.training)
    chain = make_chat_chain(tmp_path, tmp_path / "out" / "chain", plan=plan)
    assert [folder.name for folder in chain.checkpoints] == ["00-base", "01-slice", "02-slice"]
    assert load_chain(chain.chain_file, settings=Settings()).transitions == 2
    assert read_stimuli(chain.search_file) == read_stimuli(tmp_path / "search.jsonl")
    assert read_stimuli(chain.holdout_file) == read_stimuli(tmp_path / "holdout.jsonl")


def test_a_folder_whose_holdout_leaks_is_refused_before_training(tmp_path):
    _dialogues(tmp_path, holdout_start=502)
    with pytest.raises(LeakageError):
        make_chat_chain(
            tmp_path, tmp_path / "chain", on_progress=lambda _: pytest.fail("it trains")
        )
    assert not (tmp_path / "chain").exists()
