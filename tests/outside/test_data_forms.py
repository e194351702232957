"""Data as people have it, read by the installed command; and one search over many of its forms."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hub_server import hub_server
from installed import Installed
from wide_search import (
    ALPACA,
    ASSISTANT,
    CALL,
    IMAGE,
    SHAREGPT,
    TOOL_TURNS,
    USER,
    WideSearch,
    chat,
    json_lines,
    parquet,
)

GOOD = {"prompt": "2 + 2?", "expected": "4"}
CHAT = chat(USER, ASSISTANT)


def _file(name: str, content: bytes, *more: object, marks: pytest.MarkDecorator) -> Any:
    return pytest.param(name, content, *more, marks=marks, id=name)


#: Name of the file, its bytes, number of stimuli, what is left out.
READ = [
    _file(
        "bom.jsonl",
        b"\xef\xbb\xbf" + json_lines(GOOD),
        1,
        {},
        marks=pytest.mark.brings("data", "JSON Lines with a byte-order mark", "read"),
    ),
    _file(
        "crlf.jsonl",
        json_lines(GOOD, GOOD, end="\r\n"),
        2,
        {},
        marks=pytest.mark.brings("data", "JSON Lines with CRLF", "read"),
    ),
    _file(
        "blank.jsonl",
        json_lines(GOOD, GOOD, end="\n\n"),
        2,
        {"blank line": 1},
        marks=pytest.mark.brings(
            "data", "blank lines between", "read; left out and counted: blank line"
        ),
    ),
    _file(
        "extra.jsonl",
        json_lines({**GOOD, "source": "web"}),
        1,
        {'field "source"': 1},
        marks=pytest.mark.brings(
            "data", "extra fields", 'read; left out and counted: field "source"'
        ),
    ),
    _file(
        "utf16.csv",
        "prompt\texpected\nÄ?\tÖ\n".encode("utf-16"),
        1,
        {},
        marks=pytest.mark.brings("data", 'Excel\'s "Unicode text"', "read"),
    ),
    _file(
        "chat.jsonl",
        json_lines(CHAT),
        1,
        {},
        marks=pytest.mark.brings("data", "OpenAI chat lines", "read"),
    ),
    _file(
        "weights.jsonl",
        json_lines(chat({**USER, "name": "ann"}, {**ASSISTANT, "weight": 1})),
        1,
        {'field "name" of a turn': 1},
        marks=pytest.mark.brings(
            "data",
            "chat lines with `name` and `weight`",
            'read; left out and counted: field "name" of a turn',
        ),
    ),
    _file(
        "tools.jsonl",
        json_lines(chat(*TOOL_TURNS, tools=[CALL]), chat(*TOOL_TURNS[:2]), CHAT),
        2,
        {"stimulus with an answer that calls a tool": 1},
        marks=pytest.mark.brings(
            "data",
            "chat lines with tools and calls",
            "read; left out and counted: stimulus with an answer that calls a tool",
        ),
    ),
    _file(
        "parts.jsonl",
        json_lines(
            chat({**USER, "content": [{"type": "text", "text": "Is it?"}]}, ASSISTANT),
            chat({**USER, "content": [IMAGE]}, ASSISTANT),
        ),
        1,
        {"stimulus with a part of type image_url": 1},
        marks=pytest.mark.brings(
            "data",
            "chat lines with content parts, images too",
            "read; left out and counted: stimulus with a part of type image_url",
        ),
    ),
    _file(
        "developer.jsonl",
        json_lines(chat({"role": "developer", "content": "Be brief."}, USER, ASSISTANT)),
        1,
        {},
        marks=pytest.mark.brings("data", "chat lines with `developer`", "read"),
    ),
    _file(
        "pairs.jsonl",
        json_lines({"prompt": "a", "completion": "b"}),
        1,
        {},
        marks=pytest.mark.brings("data", "prompt and completion", "read"),
    ),
    _file(
        "alpaca.json",
        json.dumps([ALPACA, ALPACA], indent=2).encode(),
        2,
        {},
        marks=pytest.mark.brings("data", "alpaca, one list", "read"),
    ),
    _file(
        "sharegpt.json",
        json.dumps([SHAREGPT]).encode(),
        1,
        {},
        marks=pytest.mark.brings("data", "ShareGPT, one list", "read"),
    ),
    _file(
        "preferences.jsonl",
        json_lines({"prompt": "a", "chosen": "b", "rejected": "c"}),
        1,
        {'field "rejected"': 1},
        marks=pytest.mark.brings(
            "data", "preference pairs", 'read; left out and counted: field "rejected"'
        ),
    ),
    _file(
        "turns.parquet",
        parquet({**CHAT, "score": 1.0}, {"messages": None, "prompt": "a", "expected": "b"}),
        2,
        {'field "score"': 2},
        marks=pytest.mark.brings("data", "Parquet", 'read; left out and counted: field "score"'),
    ),
    _file(
        "semicolons.csv",
        b"\xef\xbb\xbfprompt;expected\r\n1,5?;b\r\n;\r\n",
        1,
        {"blank line": 1},
        marks=pytest.mark.brings(
            "data", "a spreadsheet's CSV with `;`", "read; left out and counted: blank line"
        ),
    ),
    _file(
        "tabs.tsv",
        b"question\tanswer\na\tb\n",
        1,
        {},
        marks=pytest.mark.brings("data", "tabs", "read"),
    ),
    _file(
        "commas.csv",
        b'Index,Text,Label\n1,"a, b",c\n',
        1,
        {'field "Index"': 1},
        marks=pytest.mark.brings(
            "data", "CSV with further columns", 'read; left out and counted: field "Index"'
        ),
    ),
    _file(
        "bare.csv",
        b"Why?;b\nWhere?;d\n",
        2,
        {},
        marks=pytest.mark.brings("data", "CSV without a header", "read"),
    ),
]

#: Name of the file, its bytes, and the reason that they read.
REFUSED = [
    _file(
        "nul.jsonl",
        b'{"prompt": "\x00"}',
        "line 1: a NUL character",
        marks=pytest.mark.brings("data", "a NUL character", "refused by file and line"),
    ),
    _file(
        "latin.csv",
        "prompt;expected\nÄ;b\n".encode("latin-1"),
        "line 2: not UTF-8",
        marks=pytest.mark.brings("data", "Latin-1", "refused by file and line"),
    ),
    _file(
        "utf16-bare.csv",
        "prompt;expected\na;b\n".encode("utf-16-le"),
        "line 1: a NUL character",
        marks=pytest.mark.brings("data", "UTF-16 without its mark", "refused by file and line"),
    ),
    _file(
        "half.jsonl",
        b'{"prompt": "\\ud800", "expected": "b"}',
        "line 1: a text holds half of a surrogate pair",
        marks=pytest.mark.brings("data", "half a surrogate pair", "refused by file and line"),
    ),
    _file(
        "ragged.csv",
        b"prompt;expected\na;b\nc\n",
        "line 3: the row has the wrong number of columns: got 1, expected 2",
        marks=pytest.mark.brings("data", "a ragged CSV", "refused by file and line"),
    ),
    _file(
        "decimal.csv",
        b"0,5;1,5\n2,5;3,5\n",
        "line 1: numbers with decimal commas",
        marks=pytest.mark.brings("data", "decimal commas", "refused by file and line"),
    ),
    _file(
        "deep.json",
        b"[" * 100_000,
        "line 1: JSON is nested too deeply",
        marks=pytest.mark.brings("data", "endless nesting", "refused by file and line"),
    ),
    _file(
        "images.jsonl",
        json_lines(chat({**USER, "content": [IMAGE]}, ASSISTANT)),
        "nothing is left that a text model can be asked: got stimulus with a part of type",
        marks=pytest.mark.brings("data", "images alone", "refused by file and line"),
    ),
    _file(
        "twice.jsonl",
        json_lines(GOOD, {**GOOD, "target": "5"}),
        "line 2: the same thing is given twice",
        marks=pytest.mark.brings("data", "two expected outputs", "refused by file and line"),
    ),
    _file(
        "no-prompt.jsonl",
        json_lines(GOOD, {"expected": "x"}),
        "line 2: there is no prompt",
        marks=pytest.mark.brings("data", "a line without a prompt", "refused by file and line"),
    ),
]


@pytest.fixture(scope="module")
def checked(
    installed: Installed, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, Any]]:
    """What one call of ``ztom data check`` says of a file: its entry, or its error."""
    folder = tmp_path_factory.mktemp("data")
    names = []
    for name, content, *_ in (case.values for case in [*READ, *REFUSED]):
        folder.joinpath(name).write_bytes(content)
        names.append(name)
    with hub_server() as hub:
        hub.add("org/name", {"train.jsonl": json_lines(GOOD)}, kind="datasets")
        variables = {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "home")}
        variables |= {"HF_HUB_OFFLINE": "0", "HF_TOKEN": ""}
        names.append("hf://datasets/org/name/train.jsonl")
        answer = installed.run("data", "check", *names, "--json", cwd=folder, env=variables)
    document = json.loads(answer.stdout)
    assert answer.returncode not in (0, 1)  # some were refused
    assert "Traceback" not in answer.stderr
    files = {file["path"]: file for file in document["files"]}

    def entry(name: str) -> dict[str, Any]:
        errors = [error for error in document["errors"] if error.startswith(name)]
        return files.get(name) or {"error": errors[0]}

    return entry


@pytest.mark.parametrize(("name", "content", "stimuli", "left_out"), READ)
def test_a_form_is_read(
    checked: Any, name: str, content: bytes, stimuli: int, left_out: dict[str, int]
) -> None:
    entry = checked(name)
    assert entry["stimuli"] == entry["with_expected"] == stimuli, entry
    assert {part["what"]: part["count"] for part in entry["left_out"]} == left_out


@pytest.mark.brings("data", "a file of a Hub data set, `hf://datasets/...`", "fetched and read")
def test_a_data_set_of_the_hub_is_read(checked: Any) -> None:
    assert checked("hf://datasets/org/name/train.jsonl")["stimuli"] == 1


@pytest.mark.parametrize(("name", "content", "reason"), REFUSED)
def test_what_cannot_be_meant_is_refused(
    checked: Any, name: str, content: bytes, reason: str
) -> None:
    error = checked(name)["error"]
    assert error.startswith(name)
    assert reason in error


@pytest.mark.brings("data", "many forms in one search, on the default engine", "searched, proved")
def test_one_search_over_many_forms(wide_search: WideSearch) -> None:
    """Chats, tools, instructions and pairs in one file; the holdout is a spreadsheet's."""
    assert wide_search.status == 0, wide_search.printed
    read = {file["name"]: file for file in wide_search.result()["data_files"]}
    assert read["search.jsonl"]["stimuli"] == 12
    assert read["search.jsonl"]["left_out"] == {
        "stimulus with a part of type image_url": 1,
        "blank line": 12,
    }
    assert (read["holdout.csv"]["stimuli"], read["rail.parquet"]["stimuli"]) == (6, 20)
    printed = " ".join(wide_search.printed.split())
    assert "left out of search.jsonl: stimulus with a part of type image_url (1)" in printed
    assert "part of type image_url" in (wide_search.run / "report.html").read_text()
