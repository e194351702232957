"""Prompts are encoded once."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ztom.engines import prompts
from ztom.engines.prompts import PromptEncoder
from ztom.errors import PromptError
from ztom.stimuli.records import Message

TEMPLATE = (
    "{% for m in messages %}{% if m.content == 'bad' %}{{ raise_exception('no') }}{% endif %}"
)
TEMPLATE += "{{ m.role }} {{ m.content }} {% endfor %}"


@pytest.fixture
def encoder(tmp_path: Path) -> PromptEncoder:
    words = ["<unk>", "user", "hello", "world"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(tmp_path)
    return PromptEncoder(tmp_path, template=TEMPLATE)


def test_a_prompt_is_rendered_and_encoded_once(encoder, monkeypatch):
    rendered: list[object] = []
    real = prompts.rendered
    monkeypatch.setattr(prompts, "rendered", lambda chat: rendered.append(chat) or real(chat))
    first = encoder.prompt_ids("hello world")
    assert first == [1, 2, 3]
    assert encoder.prompt_ids("hello world") == first
    assert encoder.prompt_ids((Message("user", "hello world"),)) == first
    assert len(rendered) == 2  # the text, and the chat


def test_what_a_caller_does_to_the_ids_is_his_own(encoder):
    encoder.prompt_ids("hello").append(99)
    encoder.continuation_ids("world").append(99)
    assert encoder.prompt_ids("hello") == [1, 2]
    assert encoder.continuation_ids("world") == [3]


def test_what_is_refused_is_refused_each_time(encoder):
    for _ in range(2):
        with pytest.raises(PromptError, match="refuses a conversation"):
            encoder.prompt_ids("bad")
        with pytest.raises(PromptError, match="no token to score"):
            encoder.continuation_ids("")
