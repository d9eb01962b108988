"""`preprocess` for every application: all columns in order, masked tokens, several workers, and training on ids."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from training import without_export

from appzoo import discovery, jobs
from appzoo.cli.main import main
from appzoo.cli.reader import JobReader
from appzoo.jobs.tables import load_rows
from appzoo.jobs.trained import new_app
from easytransfer.config.job import JobConfig
from easytransfer.data.encoded import EncodedTable, HostColumn, Ragged
from easytransfer.data.id_tables import encode_ids, is_id_table
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import BadRows, open_table
from easytransfer.errors import ConfigError, DataError

APPLICATIONS = discovery.applications()
VARIANTS = [(name, variant) for name, application in APPLICATIONS.items() for variant in application.variants]
WORDS = "the movie was good bad not very we our a film 42 , .".split()
LENGTH = 12

LIMITS = {"input_ids": (50, "vocab_size"), "segment_ids": (2, "type_vocab_size")}


def config_of(mode: str, **flags: object) -> JobConfig:
    arguments = [f"--{name}={value}" for name, value in flags.items() if value is not None]
    return JobReader(mode, arguments, []).read().config


def command(capfd, mode: str, code: int = 0, **flags: object):
    capfd.readouterr()
    found = main([mode, *(f"--{name}={value}" for name, value in flags.items())])
    captured = capfd.readouterr()
    assert found == code, captured.err
    return json.loads(captured.out) if not code else captured.err.splitlines()[-1]


def assert_equal_tables(a: EncodedTable, b: EncodedTable, names) -> None:
    """Compares columns that models read; a list of one length may come back as a matrix."""
    for name in names:
        first, second = a.columns[name], b.columns[name]
        if isinstance(first, Ragged):
            np.testing.assert_array_equal(first.offsets, second.offsets, err_msg=name)
            np.testing.assert_array_equal(first.values, second.values, err_msg=name)
        else:
            np.testing.assert_array_equal(first, second, err_msg=name)


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_every_application_writes_what_it_trains_on(repository, monkeypatch, tmp_path, name, variant):
    monkeypatch.chdir(repository)
    first = next(iter(APPLICATIONS[name].variants))
    smoke = repository / "appzoo" / name / "configs" / ("smoke.yaml" if variant == first else f"smoke_{variant}.yaml")
    if not smoke.is_file():
        pytest.skip(f"{smoke} does not exist")
    trained = config_of("train", config=smoke, checkpointDir=tmp_path / "run")
    output = tmp_path / "ids.jsonl"
    config = trained.model_copy(deep=True)
    config.data.input_table, config.data.output_table = trained.data.train_table, str(output)
    app = new_app(trained)
    app.load_parts(None, lambda column: jobs.tables.values_of_column(app, trained.data.train_table, column))
    if not all(part.preprocessable for part in app.inputs):
        with pytest.raises(ConfigError, match="nothing to preprocess"):
            jobs.preprocess(config)
        return
    if hasattr(app, "vocabulary") or "words" in type(app).__mro__[1].__module__:
        # Ids of words are of use only with the vocabulary of a trained run.
        with pytest.raises(ConfigError, match="takes its words from a training table"):
            jobs.preprocess(config)
        return
    result = jobs.preprocess(config)
    expected = load_rows(app, trained.data.train_table, with_labels=True)
    assert (result["read"], result["rejected"]) == (expected.count.read, expected.count.rejected)
    assert result["written"] == len(expected.encoded)
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert result["columns"] == list(rows[0]) and set(app.label_columns) & set(rows[0])
    dense = {name: column for name, column in expected.encoded.columns.items() if type(column) is not HostColumn}
    assert set(result["columns"]) == {*dense, *expected.encoded.masks}, "what stays on the host is not written"
    for column, values in dense.items():
        for row, found in enumerate(rows):
            value, pad = values[row], expected.encoded.pad_values.get(column, 0)
            cell = np.asarray(found[column])
            if isinstance(values, Ragged):
                np.testing.assert_array_equal(cell[: len(value)], value, err_msg=column)
                assert len(cell) == trained.data.sequence_length and (cell[len(value) :] == pad).all()
            else:
                np.testing.assert_allclose(cell, value, rtol=1e-6, err_msg=column)


# Tables of ids -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled table whose label is told by one word."""
    path = tmp_path_factory.mktemp("table") / "rows.tsv"
    draw = np.random.default_rng(1)
    lines = []
    for row in range(43):
        label = row % 2
        words = [*draw.choice(WORDS[5:], size=row % 7), "good" if label else "bad"]
        lines.append(f"{row}\t{' '.join(words)}\t{'pos' if label else 'neg'}\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


def text_flags(table: Path, model: Path) -> dict[str, object]:
    return {
        "inputTable": table, "inputSchema": "id:int:1,text:str:1,label:str:1", "firstSequence": "text",
        "modelName": "text_classify_bert", "sequenceLength": LENGTH,
        "advancedParameters": f"pretrain_model_name_or_path={model}",
    }  # fmt: skip


LABELS = {"labelName": "label", "labelEnumerateValues": "neg,pos"}
ID_SCHEMA = f"input_ids:int:{LENGTH},input_mask:int:{LENGTH},segment_ids:int:{LENGTH},label_id:int:1,id:int:1"


@pytest.fixture(scope="module")
def ids(table: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same table as token ids."""
    path = tmp_path_factory.mktemp("ids") / "ids.tsv"
    flags = text_flags(table, tiny_model) | LABELS
    jobs.preprocess(config_of("preprocess", outputTable=path, outputSchema="bert_finetune", appendCols="id", **flags))
    return path


def test_rows_keep_their_order_and_appended_columns(ids, table):
    rows = [line.split("\t") for line in ids.read_text(encoding="utf-8").splitlines()]
    source = [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines()]
    assert [row[4] for row in rows] == [row[0] for row in source]
    assert [row[3] for row in rows] == ["01"[row[2] == "pos"] for row in source]


def test_ids_come_back_as_they_were_encoded(ids, table, tiny_model):
    config = config_of("train", **text_flags(f"{table},{table}", tiny_model), **LABELS, checkpointDir="x")
    app = new_app(config)
    app.load_assets(None)
    encoded = load_rows(app, str(table), with_labels=True).encoded
    schema = parse_schema(ID_SCHEMA)
    assert is_id_table(schema) and not is_id_table(parse_schema("input_ids:str:1,text:str:1"))
    chunks = open_table(str(ids), schema=schema).chunks(size=10)
    found = EncodedTable.concat([encode_ids(chunk, schema, ["label_id"]) for chunk in chunks])
    assert_equal_tables(encoded, found, encoded.columns)
    assert found.masks == encoded.masks and set(found.columns) == set(encoded.columns)


def test_ids_without_a_mask_end_behind_the_last_one(tmp_path):
    (tmp_path / "t.tsv").write_text("2,7,3,0,0\n2,0,3,4,0\n")
    schema = parse_schema("input_ids:int:5")
    (chunk,) = open_table(str(tmp_path / "t.tsv"), schema=schema).chunks()
    assert encode_ids(chunk, schema).columns["input_ids"].lengths.tolist() == [3, 4]


def test_sides_have_masks_of_their_own(tmp_path):
    (tmp_path / "t.tsv").write_text("2,7,3\t1,1,1\t2,3,0,0\t1,1,0,0\t0,0,0,0\n")
    schema = parse_schema("input_ids:int:3,input_mask:int:3,input_ids_b:int:4,input_mask_b:int:4,segment_ids_b:int:4")
    (chunk,) = open_table(str(tmp_path / "t.tsv"), schema=schema).chunks()
    found = encode_ids(chunk, schema)
    assert found.masks == {"input_mask": "input_ids", "input_mask_b": "input_ids_b"}
    assert {name: column.lengths.tolist() for name, column in found.columns.items()} == {
        "input_ids": [3], "input_ids_b": [2], "segment_ids_b": [2]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("2,7,3\t1,0,1\t0", "not a mask"),
        ("2,-7,3\t1,1,1\t0", "id out of range: -7"),
        ("2,99,3\t1,1,1\t0", "id out of range: 99"),
        ("0,0,0\t0,0,0\t0", "no token"),
        ("2,7\t1,1,1\t0", "wrong list length"),
        ("2,x,3\t1,1,1\t0", "not an integer"),
    ],
)
def test_bad_rows_of_ids(tmp_path, row, reason):
    (tmp_path / "t.tsv").write_text(f"2,7,3\t1,1,1\t1\n{row}\n2,8,3\t1,1,0\t1\n")
    schema, bad_rows = parse_schema("input_ids:int:3,input_mask:int:3,label_id:int:1"), BadRows("skip")
    (chunk,) = open_table(str(tmp_path / "t.tsv"), schema=schema, bad_rows=bad_rows).chunks()
    found = encode_ids(chunk, schema, ["label_id"], LIMITS)
    assert found.columns["input_ids"].lengths.tolist() == [3, 2] and found.columns["label_id"].tolist() == [1, 1]
    assert list(bad_rows.reasons) == [reason.split(":")[0]]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("2,7,3\t1,1,1\t0,7,0", "column 'segment_ids': id out of range: 7 is not below type_vocab_size=2"),
        ("2,7,3\t1,1,1\t0,0,-1", "column 'segment_ids': id out of range: -1 is below 0"),
        ("2,99,3\t1,1,1\t0,0,0", "column 'input_ids': id out of range: 99 is not below vocab_size=50"),
        ("2,7,3\t1,2,1\t0,0,0", "column 'input_mask': not a mask: 2 is neither 0 nor 1"),
        ("2,7,3\t1,-1,0\t0,0,0", "column 'input_mask': not a mask: -1 is neither 0 nor 1"),
    ],
)
def test_ids_that_the_model_has_no_row_for_are_named(tmp_path, row, reason):
    (tmp_path / "t.tsv").write_text(f"2,7,3\t1,1,0\t0,1,9\n{row}\n")
    schema = parse_schema("input_ids:int:3,input_mask:int:3,segment_ids:int:3")
    (chunk,) = open_table(str(tmp_path / "t.tsv"), schema=schema).chunks()
    with pytest.raises(DataError, match=f"t.tsv:2: {reason}"):
        encode_ids(chunk, schema, limits=LIMITS)
    assert chunk.accepted.tolist() == [True, False], "behind the end of a row anything may stand"


def test_segments_of_the_second_side_and_starts_of_words_are_checked(tmp_path):
    columns = "input_ids:int:3,input_ids_b:int:2,segment_ids_b:int:2,word_starts:int:2"
    (tmp_path / "t.tsv").write_text("2,7,3\t2,3\t0,1\t1,0\n2,7,3\t2,3\t0,2\t1,0\n2,7,0\t2,3\t0,1\t1,2\n")
    schema, bad_rows = parse_schema(columns), BadRows("quarantine", quarantine_path=tmp_path / "bad")
    (chunk,) = open_table(str(tmp_path / "t.tsv"), schema=schema, bad_rows=bad_rows).chunks()
    assert len(encode_ids(chunk, schema, limits=LIMITS)) == 1
    bad = [line.split("\t")[2:4] for line in (tmp_path / "bad").read_text().splitlines()]
    assert bad == [
        ["segment_ids_b", "id out of range: 2 is not below type_vocab_size=2"],
        ["word_starts", "id out of range: 2 is not below the tokens of the row=2"],
    ]


def train(config: JobConfig) -> dict:
    """Trains without the export at the end."""
    with without_export():
        return jobs.train(config)


@pytest.fixture(scope="module")
def runs(table: Path, ids: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same training from text and from ids."""
    folder = tmp_path_factory.mktemp("runs")
    usual = {"batchSize": 8, "learningRate": 1e-3}
    flags = text_flags(f"{table},{table}", tiny_model) | LABELS | usual
    train(config_of("train", checkpointDir=folder / "text", **flags))
    for name in ("inputSchema", "firstSequence", "labelName", "inputTable"):
        flags.pop(name)
    flags |= {"inputTable": f"{ids},{ids}", "inputSchema": ID_SCHEMA}
    train(config_of("train", checkpointDir=folder / "ids", **flags))
    return {name: folder / name for name in ("text", "ids")}


def test_training_on_ids_gives_the_weights_of_training_on_text(runs):
    from safetensors.numpy import load_file

    weights = []
    for run in runs.values():
        last = json.loads((run / "checkpoint.json").read_text())["last"]
        weights.append(load_file(run / last / "weights.safetensors"))
    assert weights[0].keys() == weights[1].keys()
    assert [name for name in weights[0] if not np.array_equal(weights[0][name], weights[1][name])] == []


def test_a_run_is_enough_to_preprocess(capfd, runs, table, tmp_path, monkeypatch):
    """Its vocabulary and labels are in its folder: the model it started from may be gone."""
    from easytransfer.config.stored import load_run_config

    def elsewhere(*arguments):
        stored = load_run_config(*arguments)
        stored["model"]["pretrain_model_name_or_path"] = "./gone"
        return stored

    monkeypatch.setattr("appzoo.cli.reader.load_run_config", elsewhere)
    found = command(
        capfd, "preprocess", checkpointPath=runs["text"], inputTable=table, outputTable=tmp_path / "ids.tsv"
    )
    assert found["read"] == 43


def test_evaluating_and_predicting_on_ids(capfd, runs, table, ids, tmp_path):
    text = command(capfd, "evaluate", checkpointPath=runs["text"], inputTable=table)
    from_ids = command(capfd, "evaluate", checkpointPath=runs["ids"], inputTable=ids)
    assert text["metrics"] == from_ids["metrics"] and from_ids["accepted"] == 43
    # A model trained on text predicts ids, and the other way round.
    command(
        capfd, "predict", checkpointPath=runs["text"], inputTable=ids, inputSchema=ID_SCHEMA, appendCols="id",
        outputTable=tmp_path / "a.tsv",
    )  # fmt: skip
    command(
        capfd, "predict", checkpointPath=runs["ids"], inputTable=table, firstSequence="text", appendCols="id",
        inputSchema="id:int:1,text:str:1,label:str:1", outputTable=tmp_path / "b.tsv",
    )  # fmt: skip
    assert (tmp_path / "a.tsv").read_bytes() == (tmp_path / "b.tsv").read_bytes()


def test_cut_texts_are_counted_and_said_in_every_mode(capfd, runs, tiny_model, tmp_path):
    table = tmp_path / "long.tsv"
    table.write_text(f"0\tgood film\tpos\n1\t{'not ' * 30}\tneg\n2\t{'bad ' * 11}\tneg\n")
    flags = {"inputTable": table, "inputSchema": "id:int:1,text:str:1,label:str:1", "firstSequence": "text"}
    expected, said = (
        {"rows": 3, "truncated": 2, "tokens": 4 + 2 * LENGTH, "unknown": 0},
        "9.3 tokens a row, 2 truncated",
    )
    run = runs["text"]

    def told(mode, **more):
        capfd.readouterr()
        assert main([mode, *(f"--{name}={value}" for name, value in more.items())]) == 0
        captured = capfd.readouterr()
        return json.loads(captured.out)["text"], captured.err

    counts, log = told("evaluate", checkpointPath=run, inputTable=table)
    assert counts == expected and f"input: 3 rows read, 3 used, 0 rejected; {said}" in log
    counts, log = told("predict", checkpointPath=run, outputTable=tmp_path / "p.tsv", **flags)
    assert counts == expected and f"input: {said}" in log
    flags |= {"modelName": "text_classify_bert", "sequenceLength": LENGTH}
    flags["advancedParameters"] = f"pretrain_model_name_or_path={tiny_model}"
    for worker in range(2):
        shares = {"outputTable": tmp_path / "i.tsv", "workerCount": 2}
        counts, _ = told("preprocess", task_index=worker, **shares, **flags)
        assert counts["rows"] in (1, 2)
    counts, _ = told("preprocess", merge="true", **shares, **flags)
    assert counts == expected, "merged is what the workers counted together"


@pytest.mark.parametrize("mode", ["predict", "preprocess"])
@pytest.mark.parametrize("policy", ["skip", "quarantine"])
def test_a_table_of_bad_rows_alone_is_an_error(capfd, runs, tmp_path, mode, policy):
    bad, output = tmp_path / "bad.tsv", tmp_path / "out.tsv"
    bad.write_text("one cell\n" * 3)
    flags = {"checkpointPath": runs["text"], "inputTable": bad, "outputTable": output, "badRows": policy}
    message = command(capfd, mode, code=3, **flags)
    assert f"no usable row in {bad}: 3 rows read, 3 rejected; wrong column count: 3" in message
    assert not output.exists() and not list(tmp_path.glob("*.pieces"))
    assert (tmp_path / "out.tsv.bad").exists() == (policy == "quarantine")


def test_only_all_workers_together_have_no_usable_row(capfd, runs, table, tmp_path):
    good = table.read_text().splitlines()[0]
    for name, lines, code in (("bad", ["cell"] * 4, 3), ("mixed", ["cell", "cell", good, good], 0)):
        path = tmp_path / f"{name}.tsv"
        path.write_text("".join(f"{line}\n" for line in lines))
        flags = {"checkpointPath": runs["text"], "inputTable": path, "outputTable": tmp_path / f"out-{name}.tsv"}
        flags |= {"badRows": "skip", "workerCount": 2}
        for worker in range(2):
            command(capfd, "predict", task_index=worker, **flags)
        found = command(capfd, "predict", code=code, merge="true", **flags)
        assert "4 rows read, 4 rejected; wrong column count: 4" in found if code else found["written"] == 2


def test_a_training_counts_its_texts_and_names_its_steps(runs):
    report = json.loads((runs["text"] / "report.json").read_text())
    assert report["text"]["train"]["rows"] == 43 and report["text"]["train"]["truncated"] == 0
    best = json.loads((runs["text"] / "evaluation.json").read_text())["best"]["step"]
    assert report["step"] == report["checkpoint_step"] == best and report["steps"] == 6
    assert json.loads((runs["ids"] / "report.json").read_text())["text"] == {}


@pytest.mark.parametrize("mode", ["evaluate", "predict"])
@pytest.mark.parametrize("suffix", ["tsv", "csv", "tsv.gz"])
def test_a_header_is_no_row(capfd, runs, table, tmp_path, mode, suffix):
    path = tmp_path / f"t.{suffix}"
    content = b"id\ttext\tlabel\n" + table.read_bytes()
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    output = {"outputTable": tmp_path / "out.tsv"} if mode == "predict" else {}
    message = command(capfd, mode, code=3, checkpointPath=runs["text"], inputTable=path, **output)
    assert f"t.{suffix}:1: the first line holds the column names: --header=names" in message
    found = command(capfd, mode, checkpointPath=runs["text"], inputTable=path, header="skip", **output)
    assert (found["read"], found["rejected"]) == (43, 0)


@pytest.mark.parametrize("name", ["predictions", "probabilities", "logits"])
@pytest.mark.parametrize("suffix", ["tsv", "csv", "jsonl"])
def test_a_copied_column_takes_no_place_of_a_prediction(capfd, runs, tmp_path, name, suffix):
    (tmp_path / "t.tsv").write_text("OLD\tgood movie\n")
    flags = {
        "checkpointPath": runs["text"], "inputTable": tmp_path / "t.tsv", "inputSchema": f"{name}:str:1,text:str:1",
        "outputTable": tmp_path / f"out.{suffix}",
    }  # fmt: skip
    message = command(capfd, "predict", code=2, appendCols=f"text,{name}", outputSchema=name, **flags)
    assert f"appendCols names a column that is written already; got '{name}'" in message
    assert "appendCols names a column twice" in command(capfd, "predict", code=2, appendCols="text,text", **flags)
    assert "outputSchema names a column twice" in command(
        capfd, "predict", code=2, outputSchema="logits,logits", **flags
    )
    assert not list(tmp_path.glob("out*"))


def test_unknown_label_ids_are_bad_rows(capfd, runs, ids, tmp_path):
    lines = ids.read_text(encoding="utf-8").splitlines()
    cells = lines[4].split("\t")
    cells[3] = "7"
    lines[4] = "\t".join(cells)
    (tmp_path / "ids.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    message = command(capfd, "evaluate", code=3, checkpointPath=runs["ids"], inputTable=tmp_path / "ids.tsv")
    assert "ids.tsv:5" in message and "'label_id'" in message and "id 7; known: 0 to 1" in message


def test_number_of_labels_stands_for_their_names(table, ids, tiny_model, tmp_path):
    config = config_of(
        "train", inputTable=f"{ids},{ids}", inputSchema=ID_SCHEMA, modelName="text_classify_bert", checkpointDir="x",
        advancedParameters=f"pretrain_model_name_or_path={tiny_model} num_labels=3",
    )  # fmt: skip
    app = new_app(config)
    app.load_assets(None)
    assert app.labels == ["0", "1", "2"]


# Masked language modelling -----------------------------------------------------------------------------------


def test_pretraining_tables(capfd, table, ids, tiny_model, tmp_path):
    advanced = f"pretrain_model_name_or_path={tiny_model} max_predictions_per_seq=3"
    flags = text_flags(table, tiny_model) | {"outputSchema": "bert_pretrain", "advancedParameters": advanced}
    result = command(capfd, "preprocess", outputTable=tmp_path / "a.tsv", **flags)
    assert result["columns"][3:] == ["masked_lm_positions", "masked_lm_ids", "masked_lm_weights"]
    command(capfd, "preprocess", outputTable=tmp_path / "b.tsv", seed=5, **flags)
    assert (tmp_path / "a.tsv").read_bytes() != (tmp_path / "b.tsv").read_bytes()
    plain = [line.split("\t")[0].split(",") for line in ids.read_text().splitlines()]
    for line, before in zip((tmp_path / "a.tsv").read_text().splitlines(), plain, strict=True):
        after, mask, _, positions, hidden, weights = (cell.split(",") for cell in line.split("\t"))
        assert len(positions) == len(hidden) == len(weights) == 3 and len(after) == len(mask) == LENGTH
        chosen = [int(p) for p, weight in zip(positions, weights, strict=True) if float(weight)]
        assert chosen and [before[p] for p in chosen] == hidden[: len(chosen)]
        others = [place for place in range(LENGTH) if place not in chosen]
        assert [after[place] for place in others] == [before[place] for place in others]


def test_three_workers_write_what_one_writes(capfd, table, tiny_model, tmp_path, monkeypatch):
    flags = text_flags(table, tiny_model) | {"outputSchema": "bert_pretrain", "appendCols": "id"}
    command(capfd, "preprocess", outputTable=tmp_path / "one.tsv", **flags)
    output = tmp_path / "three.tsv"
    for worker in range(3):
        command(capfd, "preprocess", outputTable=output, workerCount=3, task_index=worker, **flags)
    parts = [path.read_text() for path in sorted(tmp_path.glob("three.tsv.part-?-of-3"))]
    assert [len(part.splitlines()) for part in parts] == [14, 14, 15]
    command(capfd, "preprocess", outputTable=output, workerCount=3, merge="true", **flags)
    assert (tmp_path / "one.tsv").read_bytes() == output.read_bytes()


def test_workers_predict_one_table(capfd, runs, table, tmp_path):
    flags = {
        "checkpointPath": runs["text"], "inputTable": table, "appendCols": "id",
        "inputSchema": "id:int:1,text:str:1,label:str:1",
    }  # fmt: skip
    for worker in range(2):
        hosts = {"worker_hosts": "a:1,b:1", "task_index": worker}
        result = command(capfd, "predict", outputTable=tmp_path / "out.csv.gz", **hosts, **flags)
        assert result["output"].endswith(f"out.csv.gz.part-{worker}-of-2")
    merged = command(capfd, "predict", outputTable=tmp_path / "out.csv.gz", workerCount=2, merge="true", **flags)
    assert merged["read"] == merged["written"] == 43
    import gzip

    lines = gzip.decompress((tmp_path / "out.csv.gz").read_bytes()).decode().splitlines()
    assert [line.split("\t")[-1] for line in lines] == [str(number) for number in range(43)]


# Columns -----------------------------------------------------------------------------------------------------


def test_wrong_columns_are_told(capfd, table, tiny_model, tmp_path):
    flags = text_flags(table, tiny_model) | {"outputTable": tmp_path / "x.tsv"}
    assert "labelName" in command(capfd, "preprocess", code=2, outputSchema="bert_finetune", **flags)
    message = command(capfd, "preprocess", code=2, outputSchema="input_ids,start_position", **flags)
    assert "start_position" in message and "segment_ids" in message
    assert "did you mean bert_predict" in command(capfd, "preprocess", code=2, outputSchema="bert_predcit", **flags)
    assert not (tmp_path / "x.tsv").exists() and not list(tmp_path.glob("x.tsv*"))


def test_labels_of_a_run_are_used(capfd, runs, table, tmp_path, tiny_model):
    flags = text_flags(table, tiny_model) | {"labelName": "label", "checkpointPath": runs["text"]}
    flags.pop("advancedParameters")
    result = command(capfd, "preprocess", outputTable=tmp_path / "ids.tsv", **flags)
    assert result["columns"] == ["input_ids", "input_mask", "segment_ids", "label_id"] and result["rejected"] == 0


def test_a_table_without_usable_rows_is_an_error(capfd, tiny_model, tmp_path):
    (tmp_path / "t.tsv").write_text("1\n2\n")
    flags = text_flags(tmp_path / "t.tsv", tiny_model) | {"outputTable": tmp_path / "x.tsv", "badRows": "skip"}
    assert "2 rows read, 2 rejected" in command(capfd, "preprocess", code=3, **flags)
