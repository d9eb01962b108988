"""CMRC 2018 from random weights, as a case for Chinese offsets: nothing is learned here, places must be right."""

import json

import pytest
from command_line import run
from training import without_export

from appzoo.text_comprehension import squad_metrics as squad

COLUMNS = ["--firstSequence", "context", "--secondSequence", "question"]


@pytest.fixture(scope="module")
def questions(shared_data, tmp_path_factory):
    """A fifth of the trial file, as a path and as (id, context, question, right answers, whether they are in place)."""
    data = json.loads((shared_data / "squad" / "cmrc2018_trial.json").read_text(encoding="utf-8"))
    data["data"] = data["data"][3::5]
    path = tmp_path_factory.mktemp("cmrc") / "trial.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    found = []
    for article in data["data"]:
        for paragraph in article["paragraphs"]:
            text = paragraph["context"]
            for question in paragraph["qas"]:
                answers = question["answers"]
                placed = all(text.startswith(answer["text"], answer["answer_start"]) for answer in answers)
                found.append((question["id"], text, question["question"], [a["text"] for a in answers], placed))
    return path, found


@pytest.fixture(scope="module")
def model(questions, tmp_path_factory):
    """A tiny encoder whose vocabulary is the characters of the file."""
    from modelzoo.commands import make_tiny

    characters = sorted({character for _, text, *_ in questions[1] for character in text if not character.isspace()})
    folder = tmp_path_factory.mktemp("zoo") / "tiny-chinese"
    make_tiny(folder, vocab=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters])
    return folder


def test_answers_are_cut_from_the_chinese_context_at_their_characters(capfd, tmp_path, questions, model):
    path, every = questions
    # One question is empty: a bad row in every mode.
    asked = [row for row in every if row[2]]
    assert (len(every), len(asked)) == (200, 199)
    usable = sum(placed for *_, placed in asked)
    common = ["--sequenceLength", "128", "--advancedParameters"]
    with without_export():
        result = run(
            capfd,
            *["--mode", "train", "--inputTable", f"{path},{path}", *COLUMNS, "--labelName", "answers"],
            *["--modelName", "text_comprehension_bert", "--checkpointDir", tmp_path / "run", "--numEpochs", "0.5"],
            *["--batchSize", "64", "--badRows", "skip", *common],
            f"pretrain_model_name_or_path={model} max_query_length=48 doc_stride=64 answer_metric=cmrc",
        )
    assert 0 <= result["metrics"]["exact_match"] <= result["metrics"]["f1"] <= 1
    output = tmp_path / "answers.jsonl"
    result = run(
        capfd,
        *["--mode", "predict", "--inputTable", path, *COLUMNS, "--outputTable", output],
        *["--checkpointPath", tmp_path / "run", "--outputSchema", "qas_id,predictions,start,end"],
        *["--badRows", "skip"],
    )
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [row["qas_id"] for row in rows] == [key for key, *_ in asked]
    assert (result["read"], result["written"]) == (len(every), len(asked))
    for row, (_, context, *_) in zip(rows, asked, strict=True):
        assert row["predictions"] and row["predictions"] == context[row["start"] : row["end"]]
    # The evaluation leaves out questions whose answers are not where the file says, and counts as the formula does.
    result = run(
        capfd,
        *["--mode", "evaluate", "--inputTable", path, *COLUMNS, "--checkpointPath", tmp_path / "run"],
        *["--labelName", "answers", "--badRows", "skip"],
    )
    assert (result["read"], result["accepted"]) == (len(every), usable) and usable < len(asked)
    kept = [(row["predictions"], golds) for row, (*_, golds, placed) in zip(rows, asked, strict=True) if placed]
    for name, metric in (("exact_match", squad.cmrc_exact_match), ("f1", squad.cmrc_f1)):
        expected = sum(max(metric(answer, gold) for gold in golds) for answer, golds in kept) / len(kept)
        assert result["metrics"][name] == pytest.approx(expected, abs=1e-12)
