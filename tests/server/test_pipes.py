"""Commands in a pipe, as processes of their own: no silence for long, with a short interval."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from gate_repository import make_locked
from toys import make_chain, make_plain_chain

INTERVAL_S = 0.2
#: The promise is half as long again as the interval; what a busy machine adds comes on top.
MOST_SILENCE_S = 1.5 * INTERVAL_S + 4.0


@contextmanager
def running(*arguments: object, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A command whose errors and progress come out of a pipe."""
    with subprocess.Popen(
        [sys.executable, "-m", "ztom", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "ZTOM_HEARTBEAT_S": str(INTERVAL_S), **environment},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_an_evaluation(tmp_path: Path) -> None:
    (model,) = make_chain(tmp_path / "chain", members=1)
    suite = make_locked(tmp_path)
    options = ("--engine", "torch", "--no-cache", "--limit", 4, "--out", tmp_path / "out")
    with running("eval", model, "--suite", suite, *options) as process:
        assert process.stderr is not None
        times, lines = [time.monotonic()], []
        for line in process.stderr:
            times.append(time.monotonic())
            lines.append(line.rstrip("\n"))
        assert process.wait() == 0, lines
    silences = [after - before for before, after in zip(times, times[1:], strict=False)]
    assert max(silences) < MOST_SILENCE_S, list(zip(silences, lines, strict=True))
    # before it knows what it does, while it loads the model, and at the end
    assert lines[0].startswith("... ztom eval (")
    assert any(line.startswith("... loading ") for line in lines), lines
    # ending takes a moment too, which a line may come in
    assert [line for line in lines if not line.startswith("... ")][-1].startswith("stays: 4 of 4")


class Slow(BaseHTTPRequestHandler):
    """Takes an upload, and answers when somebody says so."""

    answer = threading.Event()

    def do_GET(self) -> None:
        self.send_error(404)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        assert self.answer.wait(60)
        self.send_error(503)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def slow() -> Iterator[HTTPServer]:
    Slow.answer.clear()
    with HTTPServer(("127.0.0.1", 0), Slow) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def test_an_upload_to_a_server_that_takes_its_time(slow: HTTPServer, tmp_path: Path) -> None:
    path = make_plain_chain(tmp_path, members=1)[0]
    server = {"ZTOM_SERVER": f"http://127.0.0.1:{slow.server_port}", "ZTOM_API_KEY": "k"}
    waiting = f"... the server checks {path.name}.tar ("
    with running("project", "add", "0" * 32, path, **server) as process:
        assert process.stderr is not None
        beats = 0
        for line in process.stderr:
            beats += line.startswith(waiting)
            if beats == 3:
                slow.RequestHandlerClass.answer.set()
        assert process.wait() == 3
    assert beats >= 3
