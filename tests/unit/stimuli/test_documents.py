"""Stimuli that are files of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ztom.errors import StimuliError
from ztom.stimuli import documents
from ztom.stimuli.documents import stimulus_lines, with_ids
from ztom.stimuli.files import read_prompts
from ztom.stimuli.records import Message

TURNS = [{"role": "user", "content": "Where is it?"}]
DIGIT = "\n".join(",".join(str(row * 28 + column) for column in range(28)) for row in range(28))


@pytest.mark.parametrize(
    ("name", "content", "count"),
    [
        ("p.json", json.dumps(TURNS), 1),
        ("p.json", json.dumps(TURNS, indent=2), 1),
        ("p.json", json.dumps([TURNS, TURNS]), 2),
        ("p.json", json.dumps({"messages": TURNS}, indent=2), 1),
        ("p.json", json.dumps([{"prompt": "a"}, {"prompt": "b"}]), 2),
        ("p.json", json.dumps(["a", "b"]), 2),
        ("p.json", json.dumps("a"), 1),
        ("p.json", json.dumps([1, 2.5]), 1),
        ("p.json", json.dumps([[1, 2], [3, 4]]), 1),
        ("p.JSON", "\ufeff" + json.dumps(TURNS), 1),
        ("p.txt", "Where is it?\nTell me.\n", 1),
        ("p.csv", DIGIT, 1),
        ("p.csv", "1,2\r\n3,4\r\n", 1),
    ],
)
def test_a_file_is_so_many_stimuli(name: str, content: str, count: int, tmp_path: Path) -> None:
    lines = stimulus_lines(name, content.encode())
    assert lines is not None
    assert len(lines) == count
    path = tmp_path / "all.jsonl"
    path.write_text("\n".join(lines) + "\n")
    if json.loads(lines[0]) not in ("a", "b"):
        assert len(read_prompts(path)) == count


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.jsonl", '{"prompt": "a"}\n'),
        ("p.json", '{"prompt": "a"}\n{"prompt": "b"}\n'),
        ("p.txt", '{"prompt": "a"}\n[{"role": "user", "content": "b"}]\n'),
        ("p.csv", "prompt,expected\na,b\n"),
        ("p", "anything"),
    ],
)
def test_lines_and_tables_stay_what_they_are(name: str, content: str) -> None:
    assert stimulus_lines(name, content.encode()) is None


def test_a_tensor_is_flattened_row_by_row(tmp_path: Path) -> None:
    lines = stimulus_lines("digit.csv", DIGIT.encode())
    (tmp_path / "d.jsonl").write_text("\n".join(lines or ()))
    (prompt,) = read_prompts(tmp_path / "d.jsonl")
    assert prompt == tuple(float(number) for number in range(28 * 28))


def test_chats_keep_their_turns(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(
        "\n".join(stimulus_lines("p.json", json.dumps(TURNS).encode()) or ())
    )
    assert read_prompts(tmp_path / "p.jsonl") == [(Message("user", "Where is it?"),)]


def test_stimuli_are_called_after_their_files_where_names_differ() -> None:
    lines = ['{"prompt": "a"}', '{"prompt": "b", "id": "own"}']
    named = with_ids(lines, ["/x/prompt_00.json", "/x/prompt_01.json"])
    assert [json.loads(line)["id"] for line in named] == ["prompt_00", "own"]
    assert with_ids(lines, ["/x/p.json", "/y/p.json"]) == lines


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("cat.jpg", b"\xff\xd8", "an image is no stimulus"),
        ("p.json", b"", "the file is empty"),
        ("p.json", b"{", "not JSON"),
        ("p.json", b"3", "the file is no stimulus"),
        ("p.json", b"[" * 5000, "JSON"),
        ("p.json", b'["\xff"]', "not UTF-8"),
        ("p.json", b'"a\x00"', "a NUL character"),
        ("p.json", b'{"prompt": "a", "prompt": "b"}', "a key twice"),
        ("p.csv", b"1,2\n3\n", r"p\.csv, line 2: the row does not fit"),
        ("p.csv", b"1,2\n3,inf\n", "does not fit"),
        ("p.csv", b'1,"2\n', "malformed CSV"),
    ],
)
def test_what_is_wrong_is_refused_by_name(name: str, content: bytes, reason: str) -> None:
    with pytest.raises(StimuliError, match=reason):
        stimulus_lines(name, content)


def test_what_is_long_is_read_in_another_process() -> None:
    turns = [{"role": "user", "content": "x" * 400}] * 1000
    (line,) = stimulus_lines("p.json", json.dumps(turns).encode())
    assert json.loads(line) == {"messages": turns}
    named = with_ids([line, line], ["/a/one.json", "/a/two.json"])
    assert [json.loads(text)["id"] for text in named] == ["one", "two"]
    with pytest.raises(StimuliError, match="an object has a key twice"):
        stimulus_lines("p.json", b'{"a": 1, "a": "' + b"x" * 300_000 + b'"}')


def test_a_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_CPU_S", 0.2)
    lists = b"[" + b"[]," * (10 * 2**20) + b"[]]"
    with pytest.raises(StimuliError, match="too many lists and objects: got 10485762"):
        stimulus_lines("p.json", lists)
    numbers = b"[" + b"1.5," * (8 * 2**20) + b"1]"
    with pytest.raises(StimuliError, match=r"cannot be read: it needed more (memory|computing)"):
        stimulus_lines("p.json", numbers)
