"""Reading stimuli: every accepted form, and every malformed file refused with file and line."""

import json
import os
import sys
from pathlib import Path

import pytest

from ztom.errors import StimuliError
from ztom.stimuli.files import check_unique_ids, read_stimuli
from ztom.stimuli.records import Message, Stimulus
from ztom.stimuli.text_files import MAX_FIELD_CHARACTERS

USER = {"role": "user", "content": "Is it raining?"}
ASSISTANT = {"role": "assistant", "content": "No."}
GOOD = json.dumps({"prompt": "2 + 2?", "expected": "4"})


@pytest.fixture
def write(tmp_path: Path):
    def _write(content: str | bytes, name: str = "stimuli.jsonl") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return _write


def _lines(*records: object) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def _refused(path: Path, **options) -> str:
    with pytest.raises(StimuliError) as caught:
        read_stimuli(path, **options)
    return str(caught.value)


# --- accepted forms ------------------------------------------------------------------------------


def test_a_full_record_is_read_as_written(write):
    record = {"id": 7, "prompt": "Hi", "expected": "Ho", "group": "p1", "metadata": {"a": [1]}}
    (stimulus,) = read_stimuli(write(_lines(record)))
    assert stimulus == Stimulus("7", "Hi", "Ho", "p1", {"a": [1]})


@pytest.mark.parametrize(
    "name", ["expected", "expected_output", "target", "response", "label", "category"]
)
def test_the_expected_output_has_several_names(write, name):
    assert read_stimuli(write(_lines({"prompt": "Hi", name: "Ho"})))[0].expected == "Ho"


@pytest.mark.parametrize(
    ("record", "prompt"),
    [
        ({"text": "Hi"}, "Hi"),
        ({"input": "Hi"}, "Hi"),
        ({"input": [1, 2.5]}, (1.0, 2.5)),
        ({"features": [0, -1e3]}, (0.0, -1000.0)),
        ({"messages": [USER]}, (Message("user", "Is it raining?"),)),
        ({"prompt": [USER]}, (Message("user", "Is it raining?"),)),
    ],
)
def test_a_prompt_has_several_forms(write, record, prompt):
    assert read_stimuli(write(_lines({**record, "expected": "x"})))[0].prompt == prompt


def test_a_last_assistant_turn_is_the_expected_output(write):
    turns = [{"role": "system", "content": "Be brief."}, USER, ASSISTANT]
    for line in ({"messages": turns}, turns):
        (stimulus,) = read_stimuli(write(_lines(line)))
        assert stimulus.expected == "No."
        assert [turn.role for turn in stimulus.prompt] == ["system", "user"]


def test_numbers_are_expected_outputs_too(write):
    records = [{"features": [1], "expected": value} for value in (3, 0.1, [1, 2.5])]
    found = [s.expected for s in read_stimuli(write(_lines(*records)))]
    assert found == ["3", "0.1", "[1, 2.5]"]


def test_labels_are_given_by_name_index_or_one_hot(write):
    values = ["cat", "dog", 0, "1", [0, 1], [1.0, 0.0]]
    path = write(_lines(*({"prompt": f"p{i}", "label": v} for i, v in enumerate(values))))
    found = [s.expected for s in read_stimuli(path, labels=["cat", "dog"])]
    assert found == ["cat", "dog", "cat", "dog", "dog", "cat"]


def test_ids_come_from_file_and_line_and_groups_from_the_folded_prompt(write):
    path = write(_lines(*({"prompt": p, "expected": "x"} for p in ("Hi  there", "hi THERE", "Ho"))))
    first, second, third = read_stimuli(path)
    assert [s.id for s in (first, second, third)] == ["stimuli:1", "stimuli:2", "stimuli:3"]
    assert first.group == second.group != third.group


def test_only_line_feeds_end_a_line(write):
    text = "a\u2028b\x85c"  # both are line ends to str.splitlines
    raw = json.dumps({"prompt": text, "expected": "x"}, ensure_ascii=False)
    path = write(raw + "\r\n" + GOOD + "\r\n\r\n\n")
    assert [s.prompt for s in read_stimuli(path)] == [text, "2 + 2?"]


def test_csv_with_a_header(write):
    path = write('text,category\nHow?,a\n"Well, ""so""\nand so",b\n', "q.csv")
    assert [(s.id, s.prompt, s.expected) for s in read_stimuli(path)] == [
        ("q:2", "How?", "a"),
        ("q:3", 'Well, "so"\nand so', "b"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "labels"),
    [
        ("e.txt", "yes\nno\n", ()),
        ("e.jsonl", '"yes"\n{"expected": "no", "id": "stimuli:2"}\n', ()),
        ("e.csv", "yes\nno\n", ()),
        ("e.csv", "target\nyes\nno\n", ()),
        ("e.csv", "id,response\n1,yes\n2,no\n", ()),
        ("e.csv", "0\n1\n", ("yes", "no")),
        ("e.csv", "1,0\n0,1\n", ("yes", "no")),
        ("e.csv", "no,yes\n0,1\n1,0\n", ("yes", "no")),
        ("e.csv", "1.0,0.0\n0.0,1.0\n", ("yes", "no")),
    ],
)
def test_expected_outputs_in_a_file_of_their_own(write, name, content, labels):
    stimuli = write(_lines([USER], {"prompt": "And now?"}))
    found = read_stimuli(stimuli, expected_outputs=write(content, name), labels=labels)
    assert [s.expected for s in found] == ["yes", "no"]


def test_rows_of_numbers_with_number_rows_as_expected_outputs(write):
    stimuli = write("1,2\n3,4\n", "x.csv")
    found = read_stimuli(stimuli, expected_outputs=write("0.5,1\n2,3\n", "y.csv"))
    assert [s.prompt for s in found] == [(1.0, 2.0), (3.0, 4.0)]
    assert [s.expected for s in found] == ["[0.5, 1.0]", "[2.0, 3.0]"]


def test_a_reply_that_is_the_word_target_is_no_header(write):
    stimuli = write(_lines([USER], {"prompt": "And now?"}))
    found = read_stimuli(stimuli, expected_outputs=write("target\nno\n", "e.csv"))
    assert [s.expected for s in found] == ["target", "no"]


# --- refused files -------------------------------------------------------------------------------


@pytest.mark.abuse(40, 41, 43)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "line 1: the file is empty"),
        (b" \n\n", "line 1: the file is empty"),
        (b"\xef\xbb\xbf \n", "line 1: the file is empty"),
        (GOOD.encode("utf-16-le"), "line 1: a NUL character"),
        (GOOD.encode("utf-32"), "line 1: a NUL character"),
        ((GOOD + "\n").encode("utf-16") + b"\x00\xd8", "line 2: not UTF-16"),
        (GOOD.encode() + b"\n\x00", "line 2: a NUL character"),
        (GOOD.encode() + b'\n{"prompt": "\xff"}', "line 2: not UTF-8"),
        (b'{"prompt": "\\ud800", "expected": "x"}', "line 1: a text holds half of a surrogate"),
        (b'{"prompt": "a", "expected": "x", "metadata": {"\\udfff": 1}}', "half of a surrogate"),
        (b'{"prompt": "a"', "line 1: not JSON"),
        (b"secret words", "line 1: not JSON: Expecting value at column 1"),
        (b'"secret"', "expected an object, or a list of turns"),
        (b"[" * 100_000, "line 1: JSON is nested too deeply"),
        (b'{"prompt": "a", "metadata": {"a": ' + b"[" * 40 + b"]" * 40 + b"}}", "too deeply"),
        (b'{"features": [NaN], "expected": "x"}', "line 1: a number is not finite: got NaN"),
        (b'{"features": [-Infinity], "expected": "x"}', "a number is not finite"),
        (b'{"features": [1e999], "expected": "x"}', "a number is not finite"),
        (b'{"features": [' + b"9" * 5000 + b'], "expected": "x"}', "too many digits"),
        (b'{"prompt": "a", "prompt": "b", "expected": "x"}', "an object has a key twice"),
    ],
)  # fmt: skip
def test_malformed_files_are_refused_with_the_line(write, content, said):
    path = write(content)
    message = _refused(path)
    assert said in message
    assert str(path) in message
    assert "secret" not in message


@pytest.mark.abuse(43)
@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"expected": "x"}, "there is no prompt"),
        ({"prompt": "a"}, "there is no expected output"),
        ({"prompt": "a", "text": "b", "expected": "x"}, "the same thing is given twice"),
        ({"prompt": "a", "expected": "x", "target": "y"}, "the same thing is given twice"),
        ({"promt": "a", "expected": "x"}, "there is no prompt: got the fields expected, promt"),
        ({"prompt": "a", "expcted": "x"}, "there is no expected output"),
        ({"prompt": 3, "expected": "x"}, "prompt is not usable: got a number"),
        ({"prompt": None, "expected": "x"}, "prompt is empty"),
        ({"prompt": " ", "expected": "x"}, "prompt is empty"),
        ({"prompt": {"a": 1}, "expected": "x"}, "prompt is not usable: got an object"),
        ({"prompt": [1, 2], "expected": "x"}, "messages[0]: got a number"),
        ({"features": "secret", "expected": "x"}, "features is not usable: got text"),
        ({"features": [], "expected": "x"}, "features is not usable: got a list"),
        ({"features": [True], "expected": "x"}, "features is not usable"),
        ({"messages": [], "expected": "x"}, "messages are not usable"),
        ({"messages": [{"role": "narrator", "content": "x"}], "expected": "x"}, "got narrator"),
        ({"messages": [{"role": 3, "content": "x"}], "expected": "x"}, "role: got a number"),
        ({"messages": [{"role": "user"}], "expected": "x"}, "messages[0].content: got null"),
        ({"messages": [{"content": "x"}], "expected": "x"}, "expected an object with role and"),
        ({"messages": [{"role": "user", "content": None}], "expected": "x"}, "content: got null"),
        ({"messages": [ASSISTANT]}, "there is no prompt before"),
        ({"messages": [USER]}, "there is no expected output"),
        ({"messages": [USER, ASSISTANT], "expected": "x"}, "an expected output besides"),
        ({"messages": [USER, {"role": "assistant", "content": " "}]}, "the last turn is empty"),
        ({"prompt": "a", "expected": ""}, "expected is empty"),
        ({"prompt": "a", "expected": True}, "expected is not usable: got true or false"),
        ({"prompt": "a", "expected": None}, "there is no expected output"),
        ({"prompt": "a", "expected": []}, "expected is not usable: got a list"),
        ({"prompt": "a", "expected": "x", "id": ""}, "id is not usable"),
        ({"prompt": "a", "expected": "x", "id": True}, "id is not usable"),
        ({"prompt": "a", "expected": "x", "group": 1.5}, "group is not usable"),
        ({"prompt": "s" * 200_000, "expected": "x"}, "a text is too long: got 200000 characters"),
    ],
)
def test_malformed_records_are_refused_with_the_line(write, record, said):
    message = _refused(write(GOOD + "\n" + _lines(record)))
    assert said in message
    assert "line 2" in message
    assert "secret" not in message


@pytest.mark.parametrize("value", ["bird", 2, -1, "2", "0.5", [1, 1], [0, 0], [1], [0.5, 0.5], 1.0])
def test_what_is_no_label_is_refused(write, value):
    path = write(_lines({"prompt": "a", "label": value}))
    assert "label is not a label: expected one of the 2 labels" in _refused(
        path, labels=["cat", "dog"]
    )


def test_an_id_that_occurs_twice_is_refused(write):
    record = {"id": "a", "prompt": "a", "expected": "x"}
    path = write(_lines(record, record))
    assert "line 2: an id occurs twice: got a" in _refused(path)
    with pytest.raises(StimuliError, match="occurs twice"):
        check_unique_ids([*read_stimuli(write(_lines(record))) * 2])


@pytest.mark.abuse(42, 43)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("text,label\na,b\nc\n", "line 3: the row has the wrong number of columns: got 1"),
        ("text,label\na,b\nc,d,e\n", "line 3: the row has the wrong number of columns: got 3"),
        ('text,label\na,b\n"secret,b\nc,d\n', "line 3: malformed CSV"),
        ('text,label\n"a"secret,b\n', "line 2: malformed CSV"),
        (f"text,label\n{'a' * 200_000},b\n", "line 2: malformed CSV: field larger"),
        ("text,label\n", "line 1: there is a header and nothing else"),
        ("secret,words,more\na,b,c\n", "line 1: the header is not usable: got 3 columns, none"),
        ("0,5;1,5\n2,5;3,5\n", "line 1: numbers with decimal commas"),
        ("sep=;\n", "line 2: there is a separator and nothing else"),
        ("text,text\na,b\n", "line 1: the header is not usable"),
        ("text,label\n,b\n", "line 2: text is empty"),
        ("1,2\n3,nan\n", "line 2: a field is not a finite number"),
    ],
)
def test_malformed_csv_is_refused_with_the_line(write, content, said):
    message = _refused(write(content, "q.csv"))
    assert said in message
    assert "secret" not in message


@pytest.mark.abuse(44)
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("e.txt", "yes\n", "got 1 expected outputs, expected 2"),
        ("e.txt", "yes\nno\nmaybe\n", "got 3 expected outputs, expected 2"),
        ("e.txt", "yes\n\n", "got 1 expected outputs, expected 2"),
        ("e.txt", "\nyes", "line 1: the line is blank"),
        ("e.txt", "yes\n" + "s" * (MAX_FIELD_CHARACTERS + 1), "line 2: the line is too long"),
        ("e.jsonl", '"yes"\n', "got 1 expected outputs"),
        ("e.jsonl", '"yes"\nno\n', "line 2: not JSON"),
        ("e.jsonl", '"yes"\n{"reply": "no"}\n', "line 2: the expected output is not usable"),
        ("e.jsonl", '"yes"\n{"expected": "no", "id": "x"}\n', "line 2: the id is not that of"),
        ("e.csv", "yes\nno\nmaybe\n", "got 3 expected outputs"),
        ("e.csv", "yes,so\nno,so\n", "line 1: a row of several columns has to hold numbers"),
        ("e.csv", "yes\nno,so\n", "line 2: the row has the wrong number of columns"),
        ("missing/e.txt", None, "does not exist"),
    ],
)
def test_malformed_expected_outputs_are_refused(write, tmp_path, name, content, said):
    path = tmp_path / name if content is None else write(content, name)
    stimuli = write(_lines([USER], {"prompt": "And now?"}))
    assert said in _refused(stimuli, expected_outputs=path)


def test_an_expected_output_in_both_files_is_refused(write):
    message = _refused(write(GOOD), expected_outputs=write("4\n", "e.txt"))
    assert "line 1: the expected output is given twice" in message


def test_what_is_no_regular_file_is_refused(tmp_path):
    assert "does not exist" in _refused(tmp_path / "missing.jsonl")
    assert "is not a regular file" in _refused(tmp_path)
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert "is not a regular file" in _refused(tmp_path / "pipe.jsonl")


def test_a_shallow_recursion_limit_is_an_error_and_not_a_crash(write):
    path = write(b'{"a":' * 5000)
    limit = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(400)
        assert "nested too deeply" in _refused(path)
    finally:
        sys.setrecursionlimit(limit)
