"""Search over vectors: against a sort of all scores, in pieces, with ties, for texts and for tables."""

import json
from pathlib import Path

import numpy as np
import pytest

from appzoo import nearest
from appzoo.cli.main import main
from appzoo.cli.searching import run_threshold
from appzoo.nearest import Nearest, all_rows, by_faiss, vector_rows
from easytransfer.data.npy_tables import NpzWriter, join_npy
from easytransfer.data.writers import open_writer

pytestmark = pytest.mark.draws_nothing


def write(path: Path, vectors: np.ndarray, column="pool_output", names=None) -> str:
    columns = {column: list(vectors), "text": names or [f"row {i}" for i in range(len(vectors))]}
    with open_writer(path, list(columns)) as writer:
        writer.write(columns)
    return str(path)


def searched(capsys, *words: str):
    assert main(["search", *words]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("candidates", [all_rows, by_faiss])
@pytest.mark.parametrize("piece", [1, 3, 100])
def test_pieces_give_what_a_sort_of_all_gives(candidates, piece):
    random = np.random.default_rng(0)
    queries, rows = random.normal(size=(5, 4)), random.normal(size=(20, 4))
    best = Nearest(queries, 6, candidates)
    for first in range(0, 20, piece):
        names = np.arange(first, min(first + piece, 20)).astype(object)
        best.add(rows[first : first + piece], names)
    scores = queries @ rows.T
    assert best.names.tolist() == np.argsort(-scores, axis=1, kind="stable")[:, :6].tolist()
    np.testing.assert_allclose(best.scores, -np.sort(-scores, axis=1)[:, :6], rtol=1e-5)


def test_of_equal_scores_the_earlier_row_is_first():
    """Rows 1, 3 and 4 are one vector, in different pieces."""
    rows = np.array([[0, 1], [1, 0], [0.6, 0.8], [1, 0], [1, 0]], float)
    best = Nearest(np.array([[1.0, 0.0]]), 4)
    for i in range(5):
        best.add(rows[i : i + 1], np.array([i], object))
    assert best.names.tolist() == [[1, 3, 4, 2]] and best.scores.tolist() == [[1, 1, 1, 0.6]]


def test_more_asked_for_than_there_are():
    best = Nearest(np.eye(2), 9)
    best.add(np.eye(2), np.array(["a", "b"], object))
    assert best.names.tolist() == [["a", "b"], ["b", "a"]]


@pytest.mark.parametrize("form", ["jsonl", "parquet", "csv", "npy"])
def test_tables_of_every_form(tmp_path, capsys, monkeypatch, form):
    """Cosines by hand: of (3, 4) with (1, 0) 0.6, with (0, 2) 0.8, with (-3, -4) -1."""
    monkeypatch.setattr(nearest, "ROWS", 2)
    rows, path = np.array([[1, 0], [0, 2], [-3, -4]], np.float32), tmp_path / f"rows.{form}"
    if form == "npy":
        with NpzWriter(tmp_path / "part.npz", ["pool_output", "text"]) as writer:
            writer.write({"pool_output": rows, "text": ["row 0", "row 1", "row 2"]})
        join_npy([tmp_path / "part.npz"], path, ["pool_output", "text"])
    else:
        write(path, rows)
    query = write(tmp_path / "q.jsonl", np.array([[3, 4]]))
    found = searched(capsys, f"--vectors={path}", f"--query={query}", "--id=text", "--queryId=text", "--topk=3")
    assert found["vector"] == "pool_output" and (found["queries"], found["rows"], found["topk"]) == (1, 3, 3)
    assert [(row["query"], row["rank"], row["id"]) for row in found["results"]] == [
        ("row 0", 1, "row 1"),
        ("row 0", 2, "row 0"),
        ("row 0", 3, "row 2"),
    ]
    assert [row["score"] for row in found["results"]] == pytest.approx([0.8, 0.6, -1.0])
    dot = searched(capsys, f"--vectors={path}", f"--query={query}", "--score=dot", "--topk=1", "--faiss")
    assert dot["results"] == [{"query": 1, "rank": 1, "id": 2, "score": 8.0}]


def test_a_table_streams(tmp_path, monkeypatch):
    monkeypatch.setattr(nearest, "ROWS", 4)
    path = write(tmp_path / "rows.jsonl", np.eye(10))
    assert [len(part.values) for part in vector_rows(path, "pool_output", None)] == [4, 4, 2]
    assert [name for part in vector_rows(path, "pool_output", None) for name in part.names] == list(range(1, 11))


def test_results_go_to_a_table(tmp_path, capsys):
    path = write(tmp_path / "rows.jsonl", np.eye(3), "embedding")
    out = tmp_path / "out.jsonl"
    words = [f"--vectors={path}", f"--query={path}", "--topk=1", f"--outputTable={out}"]
    assert searched(capsys, *words)["output"] == str(out)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["query"], row["rank"], row["id"], row["score"]) for row in rows] == [(i, 1, i, 1.0) for i in (1, 2, 3)]
    assert main(["search", *words]) == 2 and "--overwrite" in capsys.readouterr().err


def test_what_cannot_be_searched_is_one_line(tmp_path, capsys, monkeypatch):
    good = write(tmp_path / "good.jsonl", np.eye(2))
    wide, zero = write(tmp_path / "wide.jsonl", np.eye(3)), write(tmp_path / "zero.jsonl", np.zeros((1, 2)))
    odd = write(tmp_path / "odd.jsonl", np.eye(2), "numbers")
    for query, vectors, code, part in (
        (good, wide, 3, "vectors of the queries have 2 numbers, those of"),
        (good, zero, 3, "zero.jsonl:1: the vector has no direction"),
        (good, odd, 2, "no column of vectors of a usual name; got 'numbers, text'; name it with --vector"),
        ("some words", good, 2, "name the model of the vectors with --checkpointPath=MODEL"),
        (good, str(tmp_path / "none.jsonl"), 3, "does not exist"),
    ):
        assert main(["search", f"--vectors={vectors}", f"--query={query}"]) == code
        (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("vectors of ")]
        assert part in line
    assert main(["search", f"--vectors={good}", f"--query={good}", "--topk=0"]) == 2
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["search", f"--vectors={good}", f"--query={good}", "--faiss"]) == 2
    assert "FAISS is not installed, which --faiss asks for; pip install" in capsys.readouterr().err


def test_texts_are_encoded_by_the_model_of_the_vectors(tmp_path, capsys, tiny_model):
    """The vectors of `ez_bert_feat`: each text finds itself with a cosine of 1."""
    from appzoo.cli.features import main as features

    texts = ["a b c", "b c", "c"]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    words = [f"--modelName={tiny_model}", f"--inputTable={tmp_path}/t.jsonl", f"--outputTable={tmp_path}/v.parquet"]
    assert features([*words, "--firstSequence=text", "--outputSchema=mean_output", "--appendCols=text"]) == 0
    capsys.readouterr()
    options = [f"--vectors={tmp_path}/v.parquet", f"--checkpointPath={tiny_model}", "--id=text", "--topk=1"]
    found = searched(capsys, *options, "--query=b c")
    assert found["results"] == [{"query": "b c", "rank": 1, "id": "b c", "score": pytest.approx(1, abs=1e-5)}]
    found = searched(capsys, *options, f"--query={tmp_path}/t.jsonl", "--firstSequence=text")
    assert [row["id"] for row in found["results"]] == texts and "threshold" not in found


def test_the_threshold_of_a_run(tmp_path):
    assert run_threshold(str(tmp_path)) is None
    config = {"schema_version": 2, "model": {"threshold": None}}
    (tmp_path / "train_config.json").write_text(json.dumps(config))
    assert run_threshold(str(tmp_path)) is None
    (tmp_path / "threshold.json").write_text('{"threshold": 0.61}')
    assert run_threshold(str(tmp_path)) == 0.61
    (tmp_path / "train_config.json").write_text(json.dumps(config | {"model": {"threshold": 0.7}}))
    assert run_threshold(str(tmp_path)) == 0.7
