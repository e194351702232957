"""Chains whose configurations and tokenizers were written by several programs.

The files come from transformers' own ``save_pretrained``, edited by hand into what older and newer
versions and trainers write.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from installed import Installed
from saved_models import GROWN_ROWS, chain_of, edit_config
from wide_search import WideSearch

from ztom.blending.chain import load_chain
from ztom.settings import Settings
from ztom.variants.verify import verify_variant


@pytest.fixture
def chain(foreign_chain: Path) -> Path:
    """Folder of the chain and its members."""
    return foreign_chain.parent


@pytest.mark.brings(
    "checkpoint",
    "configurations and tokenizers that older, newer and other programs wrote",
    "blends with the latest one's; what can change answers is named",
)
@pytest.mark.brings(
    "checkpoint",
    "a vocabulary that has grown",
    "blends; rows that a member lacks have no delta, which the report says",
)
def test_a_chain_of_several_programs_blends_and_verifies(
    installed: Installed, chain: Path, tmp_path: Path
) -> None:
    arguments = ("--factors", "0.3,-0.2", "--output", tmp_path / "variant", "--json")
    answer = installed.run("blend", chain / "chain.yaml", *arguments)
    assert answer.returncode == 0, answer.stderr
    notes = json.loads(answer.stdout)["notes"]
    assert any("config eos_token_id: 2 in base, grown (used), [2, 7] in tuned" in n for n in notes)
    assert any(note.startswith("config id2label: ") for note in notes)
    assert any(note.startswith("vocabulary: base has 384 rows, grown (used) 387") for note in notes)
    assert any(note.startswith("chat template: ") and "grown (used)" in note for note in notes)
    assert any("tokenizer: grown (used) has 87 token(s) more than base" in note for note in notes)
    assert not any("unsloth" in note or "head_dim" in note for note in notes)
    check = verify_variant(tmp_path / "variant", share=1.0, settings=Settings())
    assert check.rederived == check.tensors > 0


@pytest.mark.brings(
    "checkpoint",
    "configurations of which one computes something else",
    "refused by name with both values, and the option that goes on",
)
def test_another_function_is_refused_and_the_option_goes_on(
    installed: Installed, chain: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(chain / "tuned", tmp_path / "other"))
    edit_config(other, rms_norm_eps=1e-5)
    file = chain_of(tmp_path / "chain.yaml", chain / "base", other)
    answer = installed.run("blend", file, "--factors", "0.5", "--output", tmp_path / "variant")
    assert answer.returncode != 0
    said = " ".join(answer.stderr.split())
    assert "config differs in rms_norm_eps (1e-06 / 1e-05)" in said
    assert "allow_config_differences: [rms_norm_eps]" in said
    assert "Traceback" not in answer.stderr
    assert not (tmp_path / "variant").exists()
    chain_of(file, chain / "base", other, allow_config_differences=["rms_norm_eps"])
    assert load_chain(file, settings=Settings()).transitions == 1


@pytest.mark.brings(
    "checkpoint", "tokenizers whose ids are other tokens", "refused; shows the first ten"
)
def test_other_ids_are_refused_with_the_first_ten(
    installed: Installed, chain: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(chain / "tuned", tmp_path / "other"))
    content = json.loads((other / "tokenizer.json").read_text())
    names = sorted(content["model"]["vocab"], key=content["model"]["vocab"].__getitem__)
    shifted = names[:50] + names[51:] + names[50:51]
    content["model"]["vocab"] = {token: index for index, token in enumerate(shifted)}
    (other / "tokenizer.json").write_text(json.dumps(content))
    file = chain_of(tmp_path / "chain.yaml", chain / "base", other)
    answer = installed.run("blend", file, "--factors", "0.5", "--output", tmp_path / "variant")
    assert answer.returncode != 0
    said = " ".join(answer.stderr.split())
    assert "250 ids stand for other tokens" in said
    assert f"50 {names[50]!r} / {names[51]!r}, 51 {names[51]!r} / {names[52]!r}" in said
    assert "Traceback" not in answer.stderr


@pytest.mark.brings("checkpoint", "a vocabulary that has grown", "is searched and proved by vLLM")
def test_the_default_engine_searches_and_proves_a_grown_chain(wide_search: WideSearch) -> None:
    result = wide_search.result()
    assert result["proof"]["variant"], wide_search.printed
    assert any(note.startswith("vocabulary: base has 384 rows") for note in result["notes"])
    assert "vocabulary: base has 384 rows" in (wide_search.run / "report.html").read_text()
    variant = wide_search.run / "variant"
    assert json.loads((variant / "config.json").read_text())["vocab_size"] == GROWN_ROWS
    assert (variant / "chat_template.jinja").read_text().count("|reply|") == 1
