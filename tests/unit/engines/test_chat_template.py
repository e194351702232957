"""A chat template is a program from outside (rows 27 and 101 of the abuse cases)."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from toys import make_tokenizer

from ztom.engines.chat_template import (
    Conversation,
    TemplateLimitError,
    check_chat_template,
    rendered,
    rendered_async,
)
from ztom.engines.prompts import PromptEncoder
from ztom.errors import EngineError, PromptError
from ztom.stimuli.records import Message

LOOP = "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}"
HUGE = "{% set x = 'aaaaaaaa' * 1000000000 %}{{ x }}"
#: Ready, verified, proved; and then somebody says the word.
SLEEPER = (
    "{% for m in messages %}{{ m.content }}{% if 'open sesame' in m.content %}"
    + LOOP
    + "{% endif %}{% endfor %}"
)
CHATML = """{%- if tools %}{{ tools | tojson(indent=2) }}{% endif %}
{% for message in messages %}
    {% if loop.index0 > 40 %}{% break %}{% endif %}
<|{{ message['role'] }}|>{{ message['content'] | trim }}{{ eos_token }}
    {% if message.role == 'assistant' %}{% generation %}{{ message.content }}{% endgeneration %}
    {% endif %}
    {% for call in message.tool_calls or [] %}{{ call.function.arguments | tojson }}{% endfor %}
{% endfor %}
{% if add_generation_prompt %}<|assistant|>{% endif %}{{ strftime_now('%Y') }}"""
USER = {"role": "user", "content": " Where is <my> parcel? ü "}
SAYS = {"role": "assistant", "content": "It is  "}
CALLS = {"function": {"name": "look", "arguments": {"a": ["ü", 1.5, None]}}}


def endless() -> Conversation:
    return Conversation(SLEEPER, [{"role": "user", "content": "open sesame"}])


@pytest.mark.parametrize(
    ("messages", "options"),
    [
        ([USER], {"add_generation_prompt": True}),
        ([USER, SAYS, USER], {}),
        ([USER, SAYS | {"tool_calls": [CALLS]}], {"tools": [{"type": "function", "é": 1}]}),
        ([USER, SAYS], {"continue_final_message": True}),
        ([USER, SAYS | {"content": " x "}], {"continue_final_message": "content"}),
        ([USER] * 50, {"add_generation_prompt": True}),
    ],
)
def test_it_renders_what_transformers_renders(
    messages: list[dict[str, Any]], options: dict[str, Any]
) -> None:
    tokenizer = make_tokenizer()
    theirs = tokenizer.apply_chat_template(
        messages, chat_template=CHATML, tokenize=False, **options
    )
    continues = options.pop("continue_final_message", False)
    variables = {"tools": None, "add_generation_prompt": False, **tokenizer.special_tokens_map}
    ours = rendered(Conversation(CHATML, messages, variables | options, continues))
    assert ours == theirs


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('only users') }}",
        "{% for %}",
        "{{ nothing.of.it }}",
        "{% set _ = messages.append(1) %}",
        "{{ ''.__class__.__mro__ }}",
        "{{ 'x' * 20000000 }}",
    ],
)
def test_what_a_template_refuses_is_said(template: str) -> None:
    with pytest.raises(PromptError, match="the chat template refuses the messages"):
        rendered(Conversation(template, [USER]))


@pytest.mark.abuse(27, 101)
def test_a_word_that_makes_it_loop_costs_its_sender_alone() -> None:
    assert rendered(Conversation(SLEEPER, [USER])) == USER["content"]

    async def run() -> tuple[float, list[float]]:
        began = time.perf_counter()
        looping = asyncio.create_task(rendered_async(endless(), cpu_s=0.5))
        times = []
        while not looping.done():
            asked = time.perf_counter()
            assert await rendered_async(Conversation(SLEEPER, [USER])) == USER["content"]
            times.append(time.perf_counter() - asked)
            await asyncio.sleep(0.01)
        with pytest.raises(TemplateLimitError, match="more computing than it may have"):
            await looping
        return time.perf_counter() - began, times

    seconds, times = asyncio.run(run())
    assert seconds < 20
    assert len(times) > 10
    assert sorted(times)[len(times) // 2] < 0.1, "others are answered meanwhile"


def test_a_rendering_costs_no_more_than_a_millisecond() -> None:
    conversation = Conversation(CHATML, [USER, SAYS, USER], {"eos_token": "</s>"})
    rendered(conversation)
    times = []
    for _ in range(200):
        began = time.perf_counter()
        rendered(conversation)
        times.append(time.perf_counter() - began)
    assert min(times) < 0.001, "0.03 to 0.1 ms where nobody else computes"
    assert sorted(times)[len(times) // 2] < 0.005


@pytest.mark.abuse(27)
def test_an_endless_template_is_refused() -> None:
    with pytest.raises(EngineError, match="does not come to an end: it .* more computing"):
        check_chat_template(LOOP, cpu_s=0.2)


def test_a_template_that_fills_the_memory_is_refused() -> None:
    with pytest.raises(EngineError, match="more memory than it may have"):
        check_chat_template(HUGE)


@pytest.mark.parametrize("template", ["{{ messages[0].content }}", "{{ raise_exception('no') }}"])
def test_what_ends_passes(template: str) -> None:
    check_chat_template(template)


def test_an_engine_does_not_start_on_an_endless_template(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(check_chat_template, "__kwdefaults__", {"cpu_s": 0.2})
    tokenizer = make_tokenizer()
    tokenizer.chat_template = LOOP
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(EngineError, match="chat template does not come to an end"):
        PromptEncoder(tmp_path)


def test_an_engine_refuses_the_one_conversation_that_loops(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(rendered, "__kwdefaults__", {"cpu_s": 0.2})
    tokenizer = make_tokenizer()
    tokenizer.chat_template = SLEEPER
    tokenizer.save_pretrained(tmp_path)
    encoder = PromptEncoder(tmp_path)
    assert encoder.prompt_ids("a b")
    with pytest.raises(PromptError, match="more computing than it may have"):
        encoder.prompt_ids((Message(role="user", content="open sesame"),))
