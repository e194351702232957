"""Calls to models through the gateway, as users make them."""

from __future__ import annotations

import threading
from typing import Any

import openai
from server_helpers import Server
from variant_folders import wait_for

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


class Traffic:
    """Users who ask until told to stop."""

    def __init__(self, client: openai.OpenAI, threads: int = 4, model: str = "support") -> None:
        self._model = model
        self.answers: list[str] = []
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._client = client
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(threads)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def after(self, count: int) -> None:
        """Wait for so many more answers."""
        goal = len(self.answers) + count
        wait_for(lambda: len(self.answers) >= goal or self.failures, f"{count} answers", 300)

    def _run(self, number: int) -> None:
        count = 0
        while not self._stop.is_set():
            count += 1
            try:
                sticky = {"x-ztom-sticky": f"{number}-{count}"}
                answer = chat(self._client, self._model, extra_headers=sticky)
                self.answers.append(answer.headers["x-ztom-variant"])
            except openai.APIError as error:
                self.failures.append(f"{type(error).__name__}: {error}")
