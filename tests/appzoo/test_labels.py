"""What label cells mean to every application: lists, numbers, truth values, one class, tags; from table to answer."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from appzoo.cli.main import main
from appzoo.jobs.tables import load_rows, values_of_column
from appzoo.jobs.trained import new_app
from easytransfer.app.targets.labels import MultiLabel, Score, SingleLabel
from easytransfer.compat.preprocessors import Settings, TextPreprocessor
from easytransfer.data.labels import LabelMap
from easytransfer.data.table import BadRows
from easytransfer.errors import ConfigError, DataError

TABLE = ["--firstSequence=text", "--labelName=label", "--sequenceLength=16"]


def prepared(tiny_model, table, name="text_classify_bert", labels="auto", data=None, **model):
    """Returns a prepared application whose label names come from a table."""
    from appzoo.discovery import config_class

    values = {"first_sequence": "text", "label_name": "label", "label_enumerate_values": labels, "sequence_length": 16}
    config = {
        "model_name": name,
        "data": {**values, **(data or {}), "train_table": str(table)},
        "model": {"pretrain_model_name_or_path": str(tiny_model), **model},
    }
    app = new_app(config_class(name).model_validate(config))
    app.load_assets(None, lambda column: values_of_column(app, str(table), column))
    return app


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def parquet(path, **columns):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as files

    files.write_table(pyarrow.table(columns), path)
    return path


def test_lists_in_json_lines_and_parquet_are_the_labels_of_the_row(tiny_model, tmp_path):
    lists = [["x", "y"], ["z"], ["y"]]
    table = written(tmp_path / "t.jsonl", [{"text": "a", "label": label} for label in lists])
    for path in (table, parquet(tmp_path / "t.parquet", text=["a", "b", "c"], label=lists)):
        app = prepared(tiny_model, path, multi_label=True)
        assert app.labels == ["x", "y", "z"]
        hot = load_rows(app, str(path), True).encoded.columns["label_id"]
        np.testing.assert_array_equal(hot, [[1, 1, 0], [0, 0, 1], [0, 1, 0]])


def test_lists_of_numbers_in_a_declared_schema_are_labels(tiny_model, tmp_path):
    (tmp_path / "t.tsv").write_text("a\t1,2\nb\t2\n")
    data = {"input_schema": "text:str:1,label:int:*"}
    app = prepared(tiny_model, tmp_path / "t.tsv", data=data, multi_label=True)
    assert app.labels == ["1", "2"]
    hot = load_rows(app, str(tmp_path / "t.tsv"), True).encoded.columns["label_id"]
    np.testing.assert_array_equal(hot, [[1, 1], [0, 1]])


def test_one_label_refuses_a_list_of_any_length_but_one(tiny_model, tmp_path):
    table = written(tmp_path / "t.jsonl", [{"text": "a", "label": label} for label in (["x"], ["y"], ["x", "y"], [])])
    with pytest.raises(DataError, match=r"a list of 2 where a row has one label; got \['x', 'y'\]"):
        prepared(tiny_model, table)
    app = prepared(tiny_model, table, data={"bad_rows": "skip"})
    bad = BadRows("skip")
    loaded = load_rows(app, str(table), True, bad)
    assert app.labels == ["x", "y"] and loaded.encoded.columns["label_id"].tolist() == [0, 1]
    assert bad.reasons == {"wrong number of labels": 2} and loaded.count.accepted == 2


@pytest.mark.parametrize(
    ("target", "cell", "value"),
    [
        (SingleLabel(LabelMap(["0", "1"])), 1.0, 1),
        (SingleLabel(LabelMap(["0", "1"])), [0], 0),
        (SingleLabel(LabelMap(["false", "true"])), True, 1),
        (MultiLabel(LabelMap(["0", "1"]), 2, 0.5), [1.0, 0], [1, 0]),
        (MultiLabel(LabelMap(["a,b", "c"]), 2, 0.5), "a,b", [0]),
        (MultiLabel(LabelMap(["a,b", "c"]), 2, 0.5), ["c", "a,b"], [1, 0]),
        (Score(), [0.5], 0.5),
    ],
)
def test_targets_read_typed_cells(target, cell, value):
    assert target.read(cell) == value


@pytest.mark.parametrize(
    ("target", "cell", "reason"),
    [
        (SingleLabel(LabelMap(["0", "1"])), "1.0", "unknown label: '1.0'; known: 0, 1; 1.0 looks like 1 but is not"),
        (SingleLabel(LabelMap(["no", "yes"])), "Yes", "unknown label: .Yes.; known: no, yes; Yes looks like yes but"),
        (SingleLabel(LabelMap(["no", "yes"])), [], "wrong number of labels: a list of 0 where a row has one label"),
        (MultiLabel(LabelMap(["no", "yes"]), 2, 0.5), ["yes", 1], "unknown label: '1'; known: no, yes"),
        (MultiLabel(LabelMap(["no", "yes"]), 2, 0.5), [], "empty label"),
        (Score(), [1, 2], "wrong number of labels: a list of 2 where a row has one label"),
    ],
)
def test_targets_say_what_is_wrong_with_a_cell(target, cell, reason):
    with pytest.raises(ValueError, match="^" + reason.replace("[", r"\[")):
        target.read(cell)


def test_whole_numbers_are_the_same_classes_in_every_typed_table(tiny_model, tmp_path):
    floats = parquet(tmp_path / "float.parquet", text=["a", "b"], label=[0.0, 1.0])
    whole = parquet(tmp_path / "int.parquet", text=["a", "b"], label=[0, 1])
    mixed = written(tmp_path / "mixed.jsonl", [{"text": "a", "label": label} for label in (0, 1.0, 1, 0.0)])
    app = prepared(tiny_model, floats)
    assert app.labels == ["0", "1"]
    assert load_rows(app, str(whole), True).encoded.columns["label_id"].tolist() == [0, 1]
    assert load_rows(app, str(mixed), True).encoded.columns["label_id"].tolist() == [0, 1, 1, 0]
    assert prepared(tiny_model, floats, labels="0,1").labels == ["0", "1"]


def test_one_class_ends_before_training_and_is_named(tiny_model, tmp_path, capfd):
    (tmp_path / "one.tsv").write_text("some text\tyes\n" * 3)
    command = ["train", "--modelName=text_classify_bert", f"--inputTable={tmp_path}/one.tsv,{tmp_path}/one.tsv", *TABLE]
    command += ["--inputSchema=text:str:1,label:str:1", f"--checkpointDir={tmp_path}/run"]
    command += ["--advancedParameters", f"pretrain_model_name_or_path={tiny_model}"]
    assert main([*command, "--labelEnumerateValues=auto"]) == 3
    assert "one class only, so there is nothing to tell apart; got 'yes (3 times)'" in capfd.readouterr().err
    assert main([*command, "--labelEnumerateValues=labels.txt"]) == 2
    assert "names one class alone, and there is no file of this name; got 'labels.txt'" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("cell", "settings", "advised"),
    [
        (2.5, {}, True),
        ("yes", {}, False),
        (2.5, {"multi_label": True}, False),
        (2.5, {"name": "sequence_labeling_bert"}, False),
        (2.5, {"name": "text_match_bert_two_tower", "matching_loss": "margin"}, False),
    ],
)
def test_one_class_left_is_told_of_numbers_where_these_can_be_predicted(tiny_model, tmp_path, cell, settings, advised):
    table = written(tmp_path / "t.jsonl", [{"text": "a", "other": "b", "label": cell}] * 3)
    with pytest.raises(DataError, match="one class only") as raised:
        prepared(
            tiny_model, table, data={"second_sequence": "other"} if "matching_loss" in settings else {}, **settings
        )
    assert ("labelEnumerateValues=none predicts numbers" in str(raised.value)) is advised


def test_one_class_folder_left_is_no_regression(tmp_path, capfd):
    (tmp_path / "pictures" / "cat").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / "cat" / "1.png")
    table = f"{tmp_path}/pictures"
    command = [
        "train",
        "--modelName=image_classify",
        f"--inputTable={table},{table}",
        f"--checkpointDir={tmp_path}/run",
    ]
    assert main([*command, "--set", "model.image_size=16"]) == 3
    assert "one class only" in (error := capfd.readouterr().err) and "'cat (1 times)'" in error


def test_tags_may_be_lists_and_follow_the_rule_of_labels(tiny_model, tmp_path):
    rows = [{"text": "the cat", "label": ["O", "B-X"]}, {"text": "a dog", "label": ["\ufeffO", "B-X\u200b"]}]
    table = written(tmp_path / "t.jsonl", rows)
    app = prepared(tiny_model, table, "sequence_labeling_bert")
    assert app.labels == ["B-X", "O"]
    assert load_rows(app, str(table), True).encoded.row_count == 2


def test_user_defined_applications_read_labels_by_the_same_rule():
    def read(cell, labels, several=False):
        preprocessor = TextPreprocessor(SimpleNamespace(), multi_label=several)
        preprocessor._settings = Settings(SimpleNamespace(first_sequence="text"), labels)
        return preprocessor._read_label(cell)

    labels = LabelMap(["0", "1", "true"])
    assert [read(cell, labels) for cell in (1.0, "0", True, [1], " 1\u200b")] == [1, 0, 2, 1, 1]
    assert read([1.0, 0], labels, several=True) == [1, 0] and read("1,0", labels, several=True) == [1, 0]
    assert read("0.5", None) == 0.5
    for cell, some, reason in (
        ([0, 1], labels, "a list of 2"),
        ("x", labels, "unknown label: 'x'"),
        ("x", None, "a num"),
    ):
        with pytest.raises(ValueError, match=reason):
            read(cell, some)
    with pytest.raises(ValueError, match="empty label"):
        read([], labels, several=True)


def test_an_unusual_tag_is_told_at_the_first_row_that_shows_it(tiny_model, tmp_path, capfd):
    rows = [("the", "0"), ("Rome", "B-LOC"), ("a the", "0 o")]
    table = written(tmp_path / "t.jsonl", [{"text": text, "label": tags} for text, tags in rows])
    app = prepared(tiny_model, table, "sequence_labeling_bert")
    load_rows(app, str(table), True)
    error = capfd.readouterr().err
    assert f"{table}:1: the tag 0 is read as O, outside of entities; usual tags are O and B-{{type}}" in error
    assert f"{table}:3: the tag o is read as O" in error and error.count("is read as") == 2


@pytest.mark.parametrize("tags", ["b-loc i-loc o", "LOC-B LOC-I OTHER", "b_LOC i_LOC OUT"])
def test_prefixes_written_otherwise_are_told_and_served_as_entities(tiny_model, tmp_path, capfd, tags):
    begin, inside, outside = tags.split()
    rows = [{"text": "the Rome", "label": f"{outside} {begin}"}, {"text": "New York a", "label": tags}] * 2
    table = written(tmp_path / "t.jsonl", rows)
    app = prepared(tiny_model, table, "sequence_labeling_bert")
    encoded = load_rows(app, str(table), True).encoded
    error, kind = capfd.readouterr().err, "loc" if "loc" in tags else "LOC"
    assert f"{table}:1: the tag {outside} is read as O, outside of entities;" in error
    assert f"{table}:1: the tag {begin} is read as B-{kind};" in error
    assert f"{table}:2: the tag {inside} is read as I-{kind};" in error and error.count("is read as") == 3
    ids = [app.labels.index(name) for name in (outside, begin, *tags.split()) * 2]
    padded = np.array([[*ids[:2], 0], ids[2:5]] * 2)
    outputs = {"tags": padded, "log_probabilities": np.zeros((4, 3, 3), np.float32)}
    found = [json.loads(cell) for cell in app.postprocess(outputs, encoded)["entities"]]
    assert found[0] == [{"type": kind, "start": 4, "end": 8, "text": "Rome"}]
    assert found[1] == [{"type": kind, "start": 0, "end": 8, "text": "New York"}] and found[2:] == found[:2]


def test_labels_of_id_tables_are_ids_of_classes(tiny_model, tmp_path):
    schema = "input_ids:int:3,label_id:{}:1"
    for kind, cell, value in (("int", "1", 1), ("float", "1.0", 1)):
        (tmp_path / "t.tsv").write_text(f"2,7,3\t{cell}\n")
        app = prepared(tiny_model, tmp_path / "t.tsv", labels="0,1", data={"input_schema": schema.format(kind)})
        label = load_rows(app, str(tmp_path / "t.tsv"), True).encoded.columns["label_id"]
        assert label.tolist() == [value] and label.dtype == np.int32
    (tmp_path / "t.tsv").write_text("2,7,3\t0.5\n")
    with pytest.raises(DataError, match="unknown label: id 0.5; known: 0 to 1"):
        load_rows(app, str(tmp_path / "t.tsv"), True)
    app = prepared(tiny_model, tmp_path / "t.tsv", labels="0,1", data={"input_schema": schema.format("str")})
    with pytest.raises(ConfigError, match="is the number of the label; got 'label_id:str:1'; accepted: label_id:int:1"):
        load_rows(app, str(tmp_path / "t.tsv"), True)


def test_tag_ids_of_id_tables_are_checked(tiny_model, tmp_path):
    schema = "input_ids:int:3,word_starts:int:2,label_id:int:3"
    (tmp_path / "t.tsv").write_text("2,7,3\t1,0\t-1,1,-1\n2,7,3\t1,0\t-1,2,-1\n")
    app = prepared(
        tiny_model, tmp_path / "t.tsv", "sequence_labeling_bert", labels="O,B-X", data={"input_schema": schema}
    )
    with pytest.raises(DataError, match="t.tsv:2: column 'label_id': unknown label: id 2; known: 0 to 1"):
        load_rows(app, str(tmp_path / "t.tsv"), True)


def test_segments_and_masks_are_checked_in_the_graph_too(tiny_model):
    import tensorflow as tf

    from appzoo.encoder import token_batch
    from modelzoo.bert.backbone import BertBackbone

    backbone = tf.function(BertBackbone.from_preset(tiny_model))
    batch = {name: value.numpy() for name, value in token_batch().items()}
    backbone(batch)
    for name, value, message in (
        ("segment_ids", 7, "type_vocab_size = 2"),
        ("segment_ids", -1, "type_vocab_size = 2"),
        ("input_mask", 2, "input_mask must be 0 or 1"),
        ("input_ids", 99999, "vocab_size = "),
    ):
        wrong = {**batch, name: np.where(np.arange(4) == 1, value, batch[name]).astype(np.int32)}
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            backbone({key: tf.constant(array) for key, array in wrong.items()})


def test_word_ids_and_masks_are_checked_in_the_graph_too():
    import tensorflow as tf

    from appzoo.words_model import WordsModel

    branch = lambda inputs, training: tf.reduce_mean(inputs[0], axis=1)  # noqa: E731
    model = tf.function(WordsModel(None, 9, 4, True, [branch], 2, ("",)))
    ids = np.ones((1, 3), np.int32)
    model({"input_ids": ids, "input_mask": ids})
    for name, message in (("input_ids", r"word ids must lie in \[0, 9\)"), ("input_mask", "input_mask must be 0 or 1")):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            model({"input_ids": ids, "input_mask": ids, name: ids * 9})


@pytest.mark.parametrize(
    ("name", "cells", "model", "names"),
    [
        ("text_classify_bert", ["yes", "no"], {}, ["no", "yes"]),
        ("text_classify_bert", [0, 1], {}, ["0", "1"]),
        ("text_classify_bert", [0.5, 1.5], {}, None),
        ("text_classify_bert", [3, 4, 5], {"num_labels": 3}, ["3", "4", "5"]),
        ("text_classify_bert", [3, 4, 5], {"num_labels": 1}, None),
        ("text_classify_bert", ["a,b", "b"], {"multi_label": True}, ["a", "b"]),
        ("text_match_bert_two_tower", ["match", "no"], {}, ["no", "match"]),
        ("text_match_bert_two_tower", [3, 4], {"matching_loss": "margin", "match_label": "4"}, ["3", "4"]),
        ("sequence_labeling_bert", ["O", "B-X"], {}, ["B-X", "O"]),
    ],
)
def test_a_table_says_itself_what_its_labels_are(tiny_model, tmp_path, name, cells, model, names):
    table = written(tmp_path / "t.jsonl", [{"text": "a", "other": "b", "label": cell} for cell in cells])
    data = {"second_sequence": "other"} if "match" in name else {}
    assert prepared(tiny_model, table, name=name, labels=None, data=data, **model).labels == names


def test_labels_that_may_be_both_are_refused_and_none_predicts_numbers(tiny_model, tmp_path):
    table = written(tmp_path / "t.jsonl", [{"text": "a", "label": cell} for cell in (1, 2, 3)])
    with pytest.raises(ConfigError, match="are these classes, or amounts"):
        prepared(tiny_model, table, labels=None)
    assert prepared(tiny_model, table, labels="none").labels is None
