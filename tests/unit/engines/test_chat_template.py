"""A chat template is a program from outside (row 27 of the abuse cases)."""

from __future__ import annotations

from pathlib import Path

import pytest
from toys import make_tokenizer

from ztom.engines.chat_template import check_chat_template
from ztom.engines.prompts import PromptEncoder
from ztom.errors import EngineError

ENDLESS = "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}"
HUGE = "{% set x = 'aaaaaaaa' * 1000000000 %}{{ x }}"


def test_an_endless_template_is_refused() -> None:
    with pytest.raises(EngineError, match=r"not rendered in 1 s"):
        check_chat_template(ENDLESS, deadline_s=1.0)


def test_a_template_that_fills_the_memory_is_refused() -> None:
    with pytest.raises(EngineError, match="ended with memory"):
        check_chat_template(HUGE)


@pytest.mark.parametrize("template", ["{{ messages[0].content }}", "{{ raise_exception('no') }}"])
def test_what_ends_passes(template: str) -> None:
    check_chat_template(template)


def test_an_engine_does_not_start_on_an_endless_template(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(check_chat_template, "__kwdefaults__", {"deadline_s": 1.0})
    tokenizer = make_tokenizer()
    tokenizer.chat_template = ENDLESS
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(EngineError, match="chat template does not come to an end"):
        PromptEncoder(tmp_path)
