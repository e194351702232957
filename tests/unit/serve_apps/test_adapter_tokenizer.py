"""An adapter's own tokenizer and chat template, beside those of the base whose engine it shares."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from saved_models import add_tokens, edit_json, edit_tokenizer
from toy_variant import open_toy_adapters
from toys import CHAT_TEMPLATE, make_tokenizer

from serve_apps.variants.adapter_tokenizer import chat_template_of, require_shared_tokenizer
from ztom.errors import EngineError, VariantError

LOOPS = "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    members = open_toy_adapters(tmp_path_factory.mktemp("adapters"), count=1).members
    base, adapter = (Path(member.reference) for member in members)
    return base, adapter


@pytest.fixture
def pair(saved: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """A base, and an adapter that brings the same tokenizer."""
    base, adapter = saved[0], Path(shutil.copytree(saved[1], tmp_path / "adapter"))
    make_tokenizer().save_pretrained(adapter)
    return base, adapter


def test_an_adapter_without_a_tokenizer_has_its_bases(saved: tuple[Path, Path]) -> None:
    base, adapter = saved
    require_shared_tokenizer(adapter, base)
    assert chat_template_of(adapter) is None


def test_the_same_tokenizer_and_a_chat_template_of_its_own(pair: tuple[Path, Path]) -> None:
    base, adapter = pair
    (adapter / "chat_template.jinja").write_text(f"own {CHAT_TEMPLATE}")
    add_tokens(adapter, pad_token="<|fill|>")
    require_shared_tokenizer(adapter, base)
    assert chat_template_of(adapter) == f"own {CHAT_TEMPLATE}"


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda f: add_tokens(f, "<|tool|>"), r"it has other tokens: '<\|tool\|>'"),
        (
            lambda f: edit_tokenizer(f, lambda content: content["model"]["merges"].clear()),
            "it splits 'The quick brown",
        ),
        (
            lambda f: edit_json(f / "tokenizer_config.json", {"eos_token": "<s>"}),
            r"begins and ends with \('<s>', '<s>'\), not \('<s>', '</s>'\)",
        ),
    ],
    ids=["tokens", "splits", "end"],
)
def test_another_tokenizer_does_not_share_the_engine(
    pair: tuple[Path, Path], change: Callable[[Path], object], difference: str
) -> None:
    base, adapter = pair
    change(adapter)
    with pytest.raises(VariantError, match=rf"{difference}.*`ztom blend` without --adapter"):
        require_shared_tokenizer(adapter, base)


def test_a_template_that_does_not_end_is_refused(pair: tuple[Path, Path]) -> None:
    base, adapter = pair
    (adapter / "chat_template.jinja").write_text(LOOPS)
    with pytest.raises(EngineError, match="does not come to an end"):
        require_shared_tokenizer(adapter, base)
