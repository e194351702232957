"""Users who ask models until they are told to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

import openai
from variant_folders import wait_for

Answer = TypeVar("Answer")


class Traffic(Generic[Answer]):
    """Users in threads of their own; every answer is kept, and every failure.

    Args:
        ask: Asks once: the number of the user, and how often this user has asked, from 1 on.
        threads: How many users there are.
        pause_s: Seconds between an answer and the user's next question. Who asks without a pause
            takes the cores that engines start on.
    """

    def __init__(
        self, ask: Callable[[int, int], Answer], *, threads: int = 4, pause_s: float = 0.0
    ) -> None:
        self.answers: list[Answer] = []
        self.failures: list[str] = []
        self._ask, self._pause_s = ask, pause_s
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(threads)]

    def __enter__(self) -> Traffic[Answer]:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(300)

    def after(self, count: int) -> None:
        """Wait for so many more answers."""
        goal = len(self.answers) + count
        wait_for(lambda: len(self.answers) >= goal or self.failures, f"{count} answers", 600)

    def _run(self, number: int) -> None:
        turn = 0
        while not self._stop.is_set():
            turn += 1
            try:
                self.answers.append(self._ask(number, turn))
            except openai.APIError as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                time.sleep(0.1)
            time.sleep(self._pause_s)
