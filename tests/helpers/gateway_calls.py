"""Calls to models through the gateway, as users make them."""

from __future__ import annotations

from typing import Any

import openai
from server_helpers import Server
from traffic import Traffic

CHAT = [{"role": "user", "content": "How do I open a file?"}]


def make_key(server: Server, name: str, **fields: Any) -> str:
    session = server.as_user(name)
    answer = session.post(f"{server.url}/v1/keys", json={"name": "k", **fields}, timeout=30)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["key"])


def chat(client: openai.OpenAI, model: str = "support", **more: Any) -> Any:
    return client.chat.completions.with_raw_response.create(model=model, messages=CHAT, **more)


def said(raw: Any) -> str:
    return raw.parse().choices[0].message.content


def chats(client: openai.OpenAI, *, threads: int = 4, model: str = "support") -> Traffic[str]:
    """Users who chat; an answer is the variant that it came from."""

    def ask(number: int, turn: int) -> str:
        sticky = {"x-ztom-sticky": f"{number}-{turn}"}
        return str(chat(client, model, extra_headers=sticky).headers["x-ztom-variant"])

    return Traffic(ask, threads=threads)
