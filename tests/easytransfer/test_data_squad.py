"""SQuAD JSON files as tables of questions."""

import json

import pytest

from easytransfer.data.table import BadRows, open_table
from easytransfer.data.writers import open_writer
from easytransfer.errors import ConfigError, DataError


def article(*questions, context="It rained in Basel.", title="Rain"):
    return {"title": title, "paragraphs": [{"context": context, "qas": list(questions)}]}


def question(name, answers=(), **more):
    return {"id": name, "question": f"{name}?", "answers": list(answers), **more}


def write(tmp_path, content, name="table.json"):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def read(path, size=3):
    bad = BadRows("skip")
    table = open_table(path, schema=None, bad_rows=bad, needed=["id", "context", "question", "answers"])
    return list(table.chunks(size=size)), table, bad


def test_one_row_per_question_with_the_context_it_belongs_to(tmp_path):
    answer = {"text": "Basel", "answer_start": 13}
    data = [
        article(question("a", [answer]), question("b", is_impossible=True, plausible_answers=[answer])),
        article(*(question(name) for name in "cde"), context="Elsewhere.", title="Sun"),
        {"title": "nothing", "paragraphs": []},
    ]
    chunks, table, _ = read(write(tmp_path, {"version": "v2.0", "data": data}))
    columns = {name: [cell for chunk in chunks for cell in chunk.columns[name]] for name in table.schema.names}
    assert columns["id"] == list("abcde") and columns["question"][4] == "e?"
    assert columns["context"] == ["It rained in Basel."] * 2 + ["Elsewhere."] * 3
    assert columns["title"] == ["Rain"] * 2 + ["Sun"] * 3
    assert [json.loads(cell) for cell in columns["answers"]] == [[answer], [], [], [], []]
    assert [int(line) for chunk in chunks for line in chunk.lines] == [1, 2, 3, 4, 5]
    assert table.row_count() == table.count.read == table.count.accepted == 5


def test_questions_without_their_parts_are_bad_rows_and_answers_may_be_absent(tmp_path):
    nameless = question("x")
    del nameless["id"]
    unlabelled = question("y")
    del unlabelled["answers"]
    numbered = {**question("z"), "id": 7}
    wrong = {**question("w"), "answers": "Basel"}
    path = write(
        tmp_path, {"data": [article(nameless, unlabelled, numbered, wrong, {**question("v"), "question": None})]}
    )
    chunks, table, bad = read(path, size=100)
    assert chunks[0].columns["id"] == ["y", "7"] and chunks[0].columns["answers"] == ["", "[]"]
    assert (table.count.read, table.count.accepted, table.count.rejected) == (5, 2, 3)
    assert bad.reasons == {"missing value": 2, "wrong type": 1}
    with pytest.raises(DataError, match=r"table.json:1: column 'id': missing value: no key 'id'"):
        list(open_table(path, schema=None).chunks())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\x00\x01PNG", "is not JSON"),
        ('{"data": [', "is not JSON"),
        ("context\tquestion\n", "is not JSON"),
        ("[1, 2]", "is a JSON array: write its rows one object a line and name the file .jsonl"),
        ({"data": [{"title": "x"}]}, r"data\[0\].paragraphs is not a list"),
        ({"data": [{"paragraphs": [{"context": "x"}]}]}, r"data\[0\].paragraphs\[0\].qas is not a list"),
        ({"data": [article("just text")]}, r"qas\[0\] is not an object"),
    ],
)
def test_other_files_are_refused_with_the_place(tmp_path, content, message):
    with pytest.raises(DataError, match=f"table.json.*{message}"):
        read(write(tmp_path, content))


def test_bytes_that_are_not_text_are_refused(tmp_path):
    path = tmp_path / "table.json"
    path.write_bytes(b'{"data": "\xff\xfe"}')
    with pytest.raises(DataError, match="table.json is not valid UTF-8"):
        read(str(path))


def test_it_is_not_an_output_form(tmp_path):
    with pytest.raises(ConfigError, match="read but not written"):
        open_writer(tmp_path / "out.json", ["a"])


def test_real_files_give_every_question(shared_data):
    for name, questions in (("xquad.en", 1190), ("cmrc2018_trial", 1002)):
        chunks, table, _ = read(str(shared_data / "squad" / f"{name}.json"), size=500)
        assert table.count.read == table.count.accepted == questions == sum(map(len, chunks))
