"""LiteRT exports of labelling, comprehension and pairs: tables and requests in a process without TensorFlow."""

import json
import subprocess
import sys

import numpy as np
import pytest
from litert_exports import export, make_app

pytest.importorskip("ai_edge_litert")

WORDS = [f"{word} {number}" for number, word in enumerate("how much is the open door of a house worth".split())]
LONG = " ".join(WORDS)  # several windows of 24 pieces
PAIR = {"second_sequence": "b"}
# Name -> settings of data and model, and the labelled rows of a table.
CASES = {
    "sequence_labeling_bert": (
        {"label_enumerate_values": "O,B-X,I-X"},
        {},
        [{"a": text, "label": " ".join(["O", "B-X", "I-X"][i % 3] for i in range(len(text.split())))}
         for text in ("how much is it", LONG, "door")],
    ),
    "text_comprehension_bert": (
        {**PAIR, "label_enumerate_values": None},
        {"max_query_length": 8, "doc_stride": 8},
        [{"a": LONG, "b": "where is it||q1", "label": f"door||{LONG.index('door')}"},
         {"a": "the door is open", "b": "what is open||q2", "label": "door||4"}],
    ),
    "text_match_bert_two_tower": (
        PAIR,
        {"projection_dim": 8},
        [{"a": "how much is it", "b": "where is it", "label": "no"}, {"a": LONG, "b": LONG, "label": "yes"},
         {"a": "door", "b": "open", "label": "no"}],
    ),
    "text_match_bert": (PAIR, {}, [{"a": "the door", "b": "a house", "label": "yes"}]),
}  # fmt: skip
# Predicts, evaluates and answers the sample requests of exports, all in one process.
PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np
from appzoo.cli.main import main
from appzoo.jobs.litert_requests import raw_caller
from easytransfer.litert.model import LiteRtModel
from easytransfer.savedmodel.array_json import decode_array
for folder, table, output in json.loads(sys.argv[1]):
    words = [f"--checkpointPath={folder}", f"--inputTable={table}"]
    assert main(["predict", *words, f"--outputTable={output}"]) == 0
    assert main(["evaluate", *words]) == 0
    model = LiteRtModel(Path(folder), 1)
    call, samples = raw_caller(model), model.manifest["samples"]["serving_default"]
    inputs = {name: decode_array(value) for name, value in samples["inputs"].items()}
    rows = len(next(iter(inputs.values())))
    wanted = {name: decode_array(value) for name, value in samples["outputs"][str(rows)].items()}
    found, none = call(inputs), call({name: value[:0] for name, value in inputs.items()})
    assert found.keys() == wanted.keys() == none.keys()
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape, name
        assert none[name].dtype == value.dtype and len(none[name]) == 0, name
        if value.dtype.kind == "f":
            assert np.allclose(found[name], value, rtol=1e-4, atol=1e-4), name
        else:
            assert found[name].tolist() == value.tolist(), name
    for row in range(rows):
        alone = call({name: value[row : row + 1] for name, value in inputs.items()})
        for name, value in alone.items():
            both = found[name][row : row + 1][tuple(map(slice, value.shape))]
            assert both.tolist() == value.tolist(), (name, row)
print("HEAVY", sorted({"tensorflow", "tf_keras", "keras", "tensorflow_text"} & set(sys.modules)), file=sys.stderr)
"""


def test_the_applications_are_imported_without_tensorflow():
    program = (
        "import sys; from appzoo.discovery import find_application; list(map(find_application, sys.argv[1:])); "
        "raise SystemExit(bool({'tensorflow', 'tf_keras', 'keras'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program, *CASES], timeout=300).returncode == 0


def network_answers(app, path):
    """Returns output columns and metrics of the network in memory for a table."""
    from appzoo.jobs.inference import evaluated, outputs_in_order
    from appzoo.jobs.trained import model_call
    from easytransfer.data.table import BadRows, RowChunk, RowCount

    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    numbers = np.arange(len(rows))
    chunk = RowChunk(
        {name: [row[name] for row in rows] for name in rows[0]}, file=str(path), lines=numbers + 1, index=numbers,
        texts=[""] * len(rows), count=RowCount(read=len(rows), accepted=len(rows)), bad_rows=BadRows("fail"),
    )  # fmt: skip
    for part in app.inputs:
        chunk = part.explode(chunk)
    encoded = app.encode(chunk, with_labels=True)
    columns = app.postprocess(outputs_in_order(encoded, model_call(app), 4), encoded)
    return columns, evaluated(app, encoded, model_call(app, labelled=True), 4).result()


@pytest.fixture(scope="module")
def answered(tiny_model, tmp_path_factory):
    """Application, export report, table and output by name; all computed by one process without TensorFlow."""
    base, found, words = tmp_path_factory.mktemp("exports"), {}, []
    for name, (data, model, rows) in CASES.items():
        app = make_app(tiny_model, name, data, **model)
        table, output = base / f"{name}.jsonl", base / f"{name}-out.jsonl"
        table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        report = export(app, base, "litert")
        found[name] = app, report, table, output
        words.append([str(each) for each in (report.path, table, output)])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(words)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stderr, done.stderr
    printed = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {name: (*case, printed[2 * number + 1]["metrics"]) for number, (name, case) in enumerate(found.items())}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_tables_and_requests_are_answered_like_the_network_does(answered, name):
    """Requests are compared in the process itself, with the sample answers of the export."""
    app, report, table, output, metrics = answered[name]
    assert [check["ok"] for check in report.checks] == [True, True]
    columns, wanted = network_answers(app, table)
    found = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [row["predictions"] for row in found] == list(columns["predictions"])
    for row, probabilities in zip(found, columns["probabilities"], strict=True):
        assert np.allclose(row["probabilities"], probabilities, atol=1e-4)
    common = wanted.keys() & metrics.keys()
    assert len(common) >= 2
    for key in common:
        printed = np.nan if metrics[key] is None else metrics[key]  # JSON has no NaN
        assert printed == pytest.approx(wanted[key], rel=1e-3, abs=1e-4, nan_ok=True), key


@pytest.mark.slow
def test_a_long_text_is_answered_from_its_windows_and_a_cut_word_is_told(answered):
    from appzoo.jobs.litert_requests import raw_caller
    from easytransfer.litert.model import LiteRtModel

    call = raw_caller(LiteRtModel(answered["sequence_labeling_bert"][1].path, 1))
    found = call({"text": np.array([LONG.encode(), b"door " + b"q" * 90, b"", None], object)[:-1]})
    assert [len(tags.split()) for tags in found["tags"]] == [len(LONG.split()), 2, 0]
    assert found["truncated"].tolist() == [False, True, False]
    assert (found["probabilities"] > 0).sum(axis=1).tolist() == [len(LONG.split()), 2, 0]


@pytest.mark.slow
def test_a_question_that_looks_like_a_list_is_one_question_and_no_token_no_answer(answered):
    from appzoo.jobs.litert_requests import raw_caller
    from easytransfer.litert.model import LiteRtModel

    call = raw_caller(LiteRtModel(answered["text_comprehension_bert"][1].path, 1))
    texts = {"context": [b"the door is open", b"the door is open", b""], "question": [b'["a", "b"]', b"a||b", b"what"]}
    found = call({name: np.array([*cells, None], object)[:-1] for name, cells in texts.items()})
    assert [len(value) for value in found.values()] == [3, 3, 3, 3]
    assert (found["answer"][2], found["start"][2], found["end"][2]) == (b"", -1, -1)
