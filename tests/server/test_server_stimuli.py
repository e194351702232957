"""Stimuli, templates and configurations that are wrong, on a real engine. Rows 27, 28, 41 to 43
and 101.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from saved_models import edit_config
from server_helpers import Server, serving, tar_of
from toys import make_chain

from serve_apps.control_plane.config import ServerConfig
from ztom.engines.config import EngineConfig

LOOP = "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}"
#: Files by name and content; a real one first.
FILES: dict[str, tuple[str, bytes]] = {
    "empty": ("a.json", b""),
    "only a byte-order mark": ("a.json", b"\xef\xbb\xbf"),
    "NUL": ("a.txt", b"a\0b"),
    "not UTF-8": ("a.txt", b"\xff\xfe\xfd"),
    "lone surrogate": ("a.json", b'[{"role": "user", "content": "\\ud800"}]'),
    "ragged table": ("a.csv", b"1,2\n3\n"),
    "unclosed quote": ("a.csv", b'prompt,expected\n"a,b\n'),
    "long field": ("a.json", json.dumps({"prompt": "x" * 200_000}).encode()),
    "deep": ("a.json", b"[" * 10_000 + b"]" * 10_000),
    "deep lines": ("a.jsonl", b'{"prompt": ' + b"[" * 500 + b"]" * 500 + b"}\n"),
    "infinite": ("a.json", b'{"input": [1e999]}'),
    "digits": ("a.json", b'{"input": [' + b"9" * 5_000 + b"]}"),
    "twice": ("a.json", b'{"prompt": "a", "prompt": "b"}'),
    "bomb": ("a.json", b"[" + b"[]," * (4 * 2**20) + b"[]]"),
    "no JSON": ("a.json", b"{"),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chain(tmp_path_factory.mktemp("chain"), members=1)[0]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    engine = EngineConfig(name="torch", dtype="float32")
    data = tmp_path_factory.mktemp("stimuli") / "data"
    with serving(ServerConfig(data=data, poll_s=0.05, engine=engine)) as server:
        yield server


@pytest.fixture(scope="module")
def ada(server: Server) -> requests.Session:
    return server.as_user("ada")


@pytest.fixture(scope="module")
def model(server: Server, ada: requests.Session, checkpoint: Path) -> str:
    project = server.project(ada)
    answer = server.upload(ada, project, tar_of(checkpoint), fileName="first")
    return str(answer.json()["fileList"][0]["filePath"])


def ask(
    server: Server, ada: requests.Session, model: str, file: tuple[str, bytes], **options: object
) -> requests.Response:
    body = {"modelPath": model, "inferenceConfigJson": json.dumps({"max_new_tokens": 2} | options)}
    url = f"{server.url}/dynamic_analysis/inference"
    return ada.post(url, data=body, files={"file": file}, timeout=60)


def test_stimuli_that_are_wrong_are_refused(server: Server, ada: requests.Session, model: str):
    good = ask(server, ada, model, ("a.json", b'{"prompt": "open"}'))
    assert good.status_code == 200, good.text
    for case, file in FILES.items():
        began = time.monotonic()
        answer = ask(server, ada, model, file)
        assert answer.status_code == 422, (case, answer.status_code, answer.text)
        assert time.monotonic() - began < 30, case
        assert str(server.services.store.root) not in answer.text, case
        assert "Traceback" not in answer.text, case


def test_a_template_of_the_caller_that_loops_is_refused(server, ada, model) -> None:
    file = ("a.json", b'[{"role": "user", "content": "open sesame"}]')
    sleeper = (
        "{{ messages[0].content }}{% if 'sesame' in messages[0].content %}" + LOOP + "{% endif %}"
    )
    began = time.monotonic()
    answer = ask(server, ada, model, file, chat_template=sleeper)
    assert answer.status_code == 422, answer.text
    assert "more computing than it may have" in answer.text
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    "changes", [{"vocab_size": 7}, {"hidden_size": 8}, {"num_hidden_layers": 9}]
)
def test_a_configuration_that_contradicts_the_tensors_is_refused(
    server: Server, ada: requests.Session, tmp_path: Path, changes: dict[str, int]
) -> None:
    (path,) = make_chain(tmp_path / "chain", members=1)
    edit_config(path, **changes)
    answer = server.upload(ada, server.project(ada, f"wrong {changes}"), tar_of(path))
    assert answer.status_code == 422, answer.text
    assert next(iter(changes)) in answer.json()["detail"]
