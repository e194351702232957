"""Data as people have it: every form of a record is read, and what was left out is counted."""

import codecs
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from ztom.errors import StimuliError
from ztom.stimuli.files import StimuliFile, read_prompts, read_stimuli_file
from ztom.stimuli.records import Message

USER = {"role": "user", "content": "Is it raining?"}
ASSISTANT = {"role": "assistant", "content": "No."}
ASKED, SYSTEM = Message("user", "Is it raining?"), Message("system", "Be brief.")
GOOD = {"prompt": "2 + 2?", "expected": "4"}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
CALL = {"type": "function", "function": {"name": "look", "arguments": '{"at": "sky"}'}}


@pytest.fixture
def read(tmp_path: Path):
    def _read(content: str | bytes | list, name: str = "d.jsonl", **options) -> StimuliFile:
        path = tmp_path / name
        if isinstance(content, list):
            content = "".join(json.dumps(record) + "\n" for record in content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_stimuli_file(path, **options)

    return _read


def _left_out(file: StimuliFile) -> dict[str, int]:
    return {entry.what: entry.count for entry in file.left_out}


@pytest.mark.parametrize(
    ("record", "form", "prompt", "expected"),
    [
        ({"prompt": "a", "completion": "b"}, "prompt and completion", "a", "b"),
        ({"prompt": [USER], "completion": [ASSISTANT]}, "chat turns", (ASKED,), "No."),
        ({"question": "a", "answer": "b"}, "prompt", "a", "b"),
        ({"question": "a", "context": "c", "answer": "b"}, "prompt", "a\n\nc", "b"),
        ({"query": "a", "response": "b", "system": None}, "prompt", "a", "b"),
        ({"instruction": "a", "input": "", "output": "b"}, "instruction", "a", "b"),
        ({"instruction": "a", "input": "c", "output": "b"}, "instruction", "a\n\nc", "b"),
        ({"instruction": "a", "context": "c", "response": "b"}, "instruction", "a\n\nc", "b"),
        (
            {"instruction": "a", "output": "b", "system": "Be brief.", "history": [["q", "r"]]},
            "instruction",
            (SYSTEM, Message("user", "q"), Message("assistant", "r"), Message("user", "a")),
            "b",
        ),
        (
            {"conversations": [{"from": "human", "value": "Is it raining?"},
                               {"from": "gpt", "value": "No."}], "system": "Be brief."},
            "ShareGPT",
            (SYSTEM, ASKED),
            "No.",
        ),
        ({"conversations": [USER, ASSISTANT]}, "chat turns", (ASKED,), "No."),
        ({"conversation": [USER, ASSISTANT]}, "chat turns", (ASKED,), "No."),
        ({"messages": [{"role": "developer", "content": "Be brief."}, USER, ASSISTANT]},
         "chat turns", (SYSTEM, ASKED), "No."),
        ({"messages": [{**USER, "content": [{"type": "text", "text": "Is it"},
                                            {"type": "text", "text": "raining?"}]}, ASSISTANT]},
         "chat turns", (Message("user", "Is it\nraining?"),), "No."),
        ({"messages": [USER, {"role": "assistant", "content": None, "refusal": "I cannot."}]},
         "chat turns", (ASKED,), "I cannot."),
        ({"messages": [USER, ASSISTANT], "expected": "No."}, "chat turns", (ASKED,), "No."),
        ({"messages": [USER, ASSISTANT], "prompt": "Is it raining?"}, "chat turns", (ASKED,),
         "No."),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "preference pair", "a", "b"),
        ({"chosen": [USER, ASSISTANT], "rejected": [USER, ASSISTANT]}, "preference pair",
         (ASKED,), "No."),
        ({"prompt": "Is it raining?", "chosen": [USER, ASSISTANT], "rejected": [USER]},
         "preference pair", (ASKED,), "No."),
        ({"prompt": "Is it raining?", "chosen": [USER, ASSISTANT], "rejected": [USER],
          "messages": [USER, ASSISTANT]}, "preference pair", (ASKED,), "No."),
        ({"prompt": "a", "expected": "b", "target": "b"}, "prompt", "a", "b"),
        ({"instruction": "a", "response": "b", "category": "qa"}, "instruction", "a", "b"),
    ],
)  # fmt: skip
def test_a_record_is_understood(read, record, form, prompt, expected):
    file = read([record])
    (stimulus,) = file.stimuli
    assert (dict(file.forms), stimulus.prompt, stimulus.expected) == ({form: 1}, prompt, expected)


def test_a_class_is_taken_where_the_task_has_labels(read):
    record = {"text": "a", "response": "Certainly.", "label": 1}
    assert read([record]).stimuli[0].expected == "Certainly."
    assert read([record], labels=["no", "yes"]).stimuli[0].expected == "yes"


def test_extra_fields_are_left_out_and_counted(read):
    named = {**USER, "name": "ann"}
    file = read([{**GOOD, "source": "x"}, {**GOOD, "source": 1, "metadata": "y"},
                 {"messages": [named, {**ASSISTANT, "weight": 1}]}])  # fmt: skip
    assert _left_out(file) == {
        'field "source"': 2,
        'field "metadata"': 1,
        'field "name" of a turn': 1,
    }
    assert file.left_out[0].first == 1
    assert len(file.stimuli) == 3


def test_what_is_asked_with_an_image_is_left_out_as_a_whole(read):
    seen = {**USER, "content": [{"type": "text", "text": "What is this?"}, IMAGE]}
    file = read([{"messages": [seen, ASSISTANT]}, {"messages": [USER, ASSISTANT]}])
    assert [stimulus.prompt for stimulus in file.stimuli] == [(ASKED,)]
    assert file.left_out[0].is_stimulus
    assert _left_out(file) == {"stimulus with a part of type image_url": 1}


def test_a_file_of_images_alone_is_refused(read):
    with pytest.raises(StimuliError, match=r"nothing is left .*part of type image_url \(1\)"):
        read([{"messages": [{**USER, "content": [IMAGE]}, ASSISTANT]}])


def test_no_answer_is_shifted_by_what_is_left_out(read, tmp_path):
    answers = tmp_path / "answers.txt"
    answers.write_bytes(codecs.BOM_UTF8 + b"one\r\ntwo\r\n")
    seen = {"messages": [{**USER, "content": [IMAGE]}]}
    file = read([seen, {"messages": [USER]}], expected_outputs=answers)
    assert [stimulus.expected for stimulus in file.stimuli] == ["two"]


def test_prompts_are_one_for_each_record_or_refused(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"messages": [{**USER, "content": [IMAGE]}]}))
    with pytest.raises(StimuliError, match=r"line 1: .*text model: got a part of type image_url"):
        read_prompts(path)
    path.write_text(json.dumps({"messages": [USER, ASSISTANT]}) + "\n" + json.dumps([USER]))
    assert read_prompts(path) == [(ASKED,), (ASKED,)]


def test_calls_of_tools_are_kept_for_the_chat_template(read):
    turns = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [{**CALL, "id": "c1"}]},
        {"role": "tool", "tool_call_id": "c1", "name": "look", "content": "clouds"},
        ASSISTANT,
    ]
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    file = read([{"messages": turns, "tools": tools}])
    tools_turn, _, call, result = file.stimuli[0].prompt
    assert (tools_turn.role, json.loads(tools_turn.content)) == ("tools", tools)
    assert json.loads(call.tool_calls)[0]["function"] == {
        "name": "look",
        "arguments": {"at": "sky"},
    }
    assert result == Message("tool", "clouds", tool_call_id="c1", name="look")
    assert _left_out(file) == {}


def test_an_answer_that_calls_a_tool_is_no_text_to_expect(read):
    call = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    file = read([{"messages": [USER, call]}, GOOD])
    assert _left_out(file) == {"stimulus with an answer that calls a tool": 1}


def test_answers_of_weight_zero_are_not_expected(read):
    lazy = {"role": "assistant", "content": "Look yourself.", "weight": 0}
    file = read([{"messages": [USER, {**ASSISTANT, "weight": 1}, USER, lazy]},
                 {"messages": [USER, lazy]}])  # fmt: skip
    assert [stimulus.expected for stimulus in file.stimuli] == ["No."]
    assert _left_out(file) == {
        "stimulus with no answer has a weight but 0": 1,
        "turn after the last answer of another weight than 0": 2,
    }


def test_pieces_of_conversations_are_read_from_question_to_answer(read):
    def said(*turns: tuple[str, str]) -> dict:
        return {"conversations": [{"from": who, "value": text} for who, text in turns]}

    file = read([
        said(("gpt", "before"), ("human", "q"), ("gpt", "a"), ("human", "thanks")),
        said(("human", "only asked")),
        {"conversations": []},
    ])  # fmt: skip
    assert [(s.prompt, s.expected) for s in file.stimuli] == [((Message("user", "q"),), "a")]
    assert _left_out(file) == {
        "stimulus with no question with an answer": 1,
        "stimulus with no turns": 1,
        "answer before the first question": 1,
        "turn after the last answer": 1,
    }


# --- containers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8], ids=["no mark", "mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_lines_with_marks_and_blank_lines(read, mark, end):
    line = json.dumps(GOOD)
    file = read(mark + end.join([line, "", "  ", line, "", ""]).encode())
    assert [s.prompt for s in file.stimuli] == ["2 + 2?"] * 2
    assert _left_out(file) == {"blank line": 2}
    assert [s.id for s in file.stimuli] == ["d:1", "d:4"]


def test_marks_between_files_that_were_put_together(read):
    line = codecs.BOM_UTF8 + json.dumps(GOOD).encode()
    assert len(read(line + b"\n" + line).stimuli) == 2


def test_utf_16_with_its_mark_is_read(read):
    table = "text\tlabel\nÄ\tb\n"
    for encoded in (table.encode("utf-16"), codecs.BOM_UTF16_BE + table.encode("utf-16-be")):
        assert [(s.prompt, s.expected) for s in read(encoded, "d.csv").stimuli] == [("Ä", "b")]


@pytest.mark.parametrize("indent", [None, 2])
def test_one_list_of_all_records(read, indent):
    file = read(json.dumps([GOOD, {**GOOD, "prompt": "3 + 3?"}], indent=indent), "alpaca.json")
    assert (file.container, [s.id for s in file.stimuli]) == ("JSON", ["alpaca:1", "alpaca:2"])
    with pytest.raises(StimuliError, match="record 2: there is no prompt"):
        read(json.dumps([GOOD, {"expected": "x"}], indent=indent), "alpaca.json")


def test_one_conversation_or_record_over_several_lines(read):
    turns = json.dumps([USER, ASSISTANT], indent=2)
    assert read(turns, "prompt_00.json").stimuli[0].prompt == (ASKED,)
    assert read(json.dumps(GOOD, indent=2), "d.json").stimuli[0].prompt == "2 + 2?"
    with pytest.raises(StimuliError, match="line 3: not JSON"):
        read('[\n{"prompt": "a"},\nsecret]', "d.json")


@pytest.mark.parametrize(
    ("content", "name", "container"),
    [
        ("prompt;expected\n1,5?;b, c\n", "d.csv", "CSV (semicolons, header)"),
        ("\ufeffPrompt;Expected;\r\n1,5?;b, c;\r\n;;\r\n", "d.csv", "CSV (semicolons, header)"),
        ("sep=;\nprompt;expected\n1,5?;b, c\n", "d.csv", "CSV (semicolons, header)"),
        ('prompt,expected\n"1,5?","b, c"\n', "d.csv", "CSV (commas, header)"),
        ("prompt\texpected\n1,5?\tb, c\n", "d.csv", "CSV (tabs, header)"),
        ("prompt\texpected\n1,5?\tb, c\n", "d.tsv", "CSV (tabs, header)"),
    ],
)
def test_tables_of_spreadsheets(read, content, name, container):
    file = read(content, name)
    assert (file.container, [(s.prompt, s.expected) for s in file.stimuli]) == (
        container,
        [("1,5?", "b, c")],
    )


def test_rows_without_a_header_are_a_prompt_and_its_answer(read):
    file = read("1,5?;b, c\nWhy?;d\n", "d.csv")
    assert file.container == "CSV (semicolons, no header)"
    assert [(s.prompt, s.expected) for s in file.stimuli] == [("1,5?", "b, c"), ("Why?", "d")]


def test_columns_that_nobody_knows_are_left_out(read):
    file = read("id,Difficulty,question,answer\n7,hard,a,b\n8,,c,d\n", "d.csv")
    assert [(s.id, s.prompt, s.expected) for s in file.stimuli] == [
        ("7", "a", "b"),
        ("8", "c", "d"),
    ]
    assert _left_out(file) == {'field "Difficulty"': 1}


def test_numbers_are_separated_as_they_like(read, tmp_path):
    answers = tmp_path / "y.csv"
    answers.write_text("0;1\n1;0\n")
    for content in ("1,2\n3,4\n", "1;2\n3;4\n", "1\t2\n3\t4\n"):
        file = read(content, "x.csv", expected_outputs=answers, labels=["no", "yes"])
        assert [(s.prompt, s.expected) for s in file.stimuli] == [
            ((1.0, 2.0), "yes"),
            ((3.0, 4.0), "no"),
        ]


def test_replies_with_semicolons_stay_whole(read, tmp_path):
    answers = tmp_path / "y.csv"
    answers.write_text("yes; of course\nno\n")
    file = read([{"prompt": "a"}, {"prompt": "b"}], expected_outputs=answers)
    assert [s.expected for s in file.stimuli] == ["yes; of course", "no"]


# --- Parquet -------------------------------------------------------------------------------------


def _parquet(path: Path, rows: list[dict]) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def test_parquet_is_read_row_by_row(tmp_path):
    rows = [
        {"messages": [USER, ASSISTANT], "image": b"\xff\xd8", "score": float("nan")},
        {
            "messages": [{"role": "user", "content": "And now?"}, ASSISTANT],
            "image": b"",
            "score": 1,
        },
    ]
    file = read_stimuli_file(_parquet(tmp_path / "train-00000.parquet", rows))
    assert (file.container, dict(file.forms)) == ("Parquet", {"chat turns": 2})
    assert [s.id for s in file.stimuli] == ["train-00000:1", "train-00000:2"]
    assert _left_out(file) == {'field "image"': 2, 'field "score"': 2}


def test_parquet_without_usable_rows_is_refused(tmp_path):
    path = _parquet(tmp_path / "a.parquet", [{"image": b"\xff"}])
    with pytest.raises(StimuliError, match="nothing to read: got 1 rows, the columns image"):
        read_stimuli_file(path)
    path = _parquet(tmp_path / "b.parquet", [{"prompt": "a", "expected": "b"}, {"prompt": None}])
    with pytest.raises(StimuliError, match="row 2: prompt is empty"):
        read_stimuli_file(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StimuliError, match="no Parquet file that can be read"):
        read_stimuli_file(path)
