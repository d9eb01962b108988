"""`base_model` on raw text: labels, preprocessors of every kind, preprocessing to tables, export."""

import json

import numpy as np
import pytest
import tensorflow as tf

from easytransfer import base_model, layers
from easytransfer.compat import model_zoo, preprocessors
from easytransfer.compat.datasets import CSVReader, CSVWriter, JsonlReader, MemoryReader
from easytransfer.compat.evaluators import classification_eval_metrics, multi_label_eval_metrics
from easytransfer.errors import ConfigError, DataError, Interrupted, ModelError
from easytransfer.losses import multi_label_sigmoid_cross_entropy, softmax_cross_entropy
from easytransfer.text.wordpiece import WordPiece

TEXTS = ["a good book", "the worst film ever", "so very nice", "hot and boring", "good good food", "a bad day"]
LABELS = ["yes", "no", "yes", "no", "yes", "no"]
ROWS = [
    {"text": text, "extra": i / 2, "label": label} for i, (text, label) in enumerate(zip(TEXTS, LABELS, strict=True))
]
SCHEMA = "text:str:1,extra:float:1,label:str:1"


class Classifier(base_model):
    """Pooled output and the appended number to two classes."""

    options: dict = {}

    def build_logits(self, features, mode=None):
        preprocessor = preprocessors.get_preprocessor(self.pretrain_model_name_or_path, **self.options)
        model = model_zoo.get_pretrained_model(self.pretrain_model_name_or_path)
        ids, mask, segments, labels, extra = preprocessor(features)
        _, pooled = model([ids, mask, segments], mode=mode)
        return layers.Dense(2)(tf.concat([pooled, extra[:, None]], axis=1)), labels

    def build_loss(self, logits, labels):
        return softmax_cross_entropy(labels, 2, logits)

    def build_eval_metrics(self, logits, labels):
        return classification_eval_metrics(logits, labels, 2)

    def build_predictions(self, predict_output):
        logits, labels = predict_output
        return {
            "predictions": tf.argmax(logits, -1),
            "logits": logits,
            "unlabelled": tf.repeat(labels is None, len(logits)),
        }


def config(model, folder, **preprocess):
    settings = {"input_schema": SCHEMA, "first_sequence": "text", "label_name": "label", "sequence_length": 8}
    settings |= {"label_enumerate_values": "no,yes", "append_feature_columns": "extra", **preprocess}
    return {
        "preprocess_config": settings,
        "model_config": {"pretrain_model_name_or_path": str(model)},
        "train_config": {"model_dir": str(folder)},
        "evaluate_config": {"eval_checkpoint_path": str(folder)},
        "predict_config": {"predict_checkpoint_path": str(folder)},
        "export_config": {"checkpoint_path": str(folder), "export_dir_base": str(folder) + "-export"},
    }


def reader(rows=ROWS, schema=SCHEMA, **settings):
    return MemoryReader(rows, schema, batch_size=4, **settings)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("text") / "run"
    app = Classifier(config(tiny_model, folder), mode="train_and_evaluate_on_the_fly")
    return folder, app.run_train_and_evaluate(reader(is_training=True), reader())


def test_labels_and_appended_columns_reach_the_model(trained, tiny_model):
    folder, metrics = trained
    assert metrics["steps"] == 2 and 0 <= metrics["py_accuracy"] <= 1
    assert json.loads((folder / "label_mapping.json").read_text()) == {"no": 0, "yes": 1}
    app = Classifier(config(tiny_model, folder), mode="evaluate_on_the_fly")
    assert app.run_evaluate(reader())["py_accuracy"] == metrics["py_accuracy"]
    unlabelled = [{"text": row["text"], "extra": row["extra"]} for row in ROWS]
    app = Classifier(config(tiny_model, folder), mode="predict_on_the_fly")
    batches = list(app.run_predict(reader(unlabelled, "text:str:1,extra:float:1")))
    assert [batch["unlabelled"].tolist() for batch in batches] == [[True] * 4, [True] * 2]
    assert [text for batch in batches for text in batch["text"]] == TEXTS
    # The appended number moves the logits.
    changed = next(app.run_predict(reader([row | {"extra": 9.0} for row in unlabelled], "text:str:1,extra:float:1")))
    assert np.abs(changed["logits"] - batches[0]["logits"]).min() > 1e-4


def test_parameters_of_the_checkpoint_are_used_in_prediction(trained, tiny_model, capfd):
    folder, _ = trained
    values = config(tiny_model, folder)
    values["model_config"] = {"pretrain_model_name_or_path": "another", "mine": 1}
    app = Classifier(values, mode="predict_on_the_fly")
    assert app.pretrain_model_name_or_path == str(tiny_model) and app.mine == 1
    assert "model_config.pretrain_model_name_or_path is" in capfd.readouterr().err


def test_other_labels_than_those_of_the_checkpoint_are_refused(trained, tiny_model):
    with pytest.raises(ConfigError, match="not those of the checkpoint; got 'yes,no'; accepted: no, yes"):
        Classifier(config(tiny_model, trained[0], label_enumerate_values="yes,no"), mode="evaluate_on_the_fly")


def serialize(model, folder, rows=ROWS, **preprocess):
    """Writes token ids and label ids of rows; returns the lines and the reader."""
    values = config(model, folder, append_feature_columns=None, tokenizer_name_or_path=str(model), **preprocess)
    data = {"no_truncate": True, "bad_rows": values["preprocess_config"].pop("bad_rows", "fail")}
    app = Serialize(values | {"data_config": data, "runtime_config": {"overwrite": True}}, mode="preprocess")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = CSVReader(str(folder / "rows.jsonl"), SCHEMA, batch_size=4)
    app.run_preprocess(table, CSVWriter(str(folder / "ids.tsv"), "input_ids,input_mask,segment_ids,label_id"))
    return [line.split("\t") for line in (folder / "ids.tsv").read_text().splitlines()], table


def test_labels_may_be_found_in_the_table_or_in_a_file(tmp_path, tiny_model):
    (tmp_path / "labels").write_text("yes\nno\n")
    for spec, first in (("auto", "1"), (str(tmp_path / "labels"), "0")):
        lines, _ = serialize(tiny_model, tmp_path, label_enumerate_values=spec)
        assert lines[0][3] == first, "the first row is yes"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"label": "maybe"}, r"rows.jsonl:2: column 'label': unknown label: 'maybe'; known: no, yes"),
        ({"label": " "}, r"rows.jsonl:2: column 'label': empty label"),
        ({"text": "good " * 20}, r"rows.jsonl:2: column 'text': too long: more than sequence_length=8 tokens"),
    ],
)
def test_bad_rows_stop_or_are_counted_once(tmp_path, tiny_model, change, expected):
    rows = [ROWS[0], ROWS[1] | change, *ROWS[2:]]
    with pytest.raises(DataError, match=expected):
        serialize(tiny_model, tmp_path, rows)
    lines, table = serialize(tiny_model, tmp_path, rows, bad_rows="skip")
    count = table.table.count
    assert (len(lines), count.read, count.accepted, count.rejected) == (5, 6, 5, 1)
    assert sum(table.table.bad_rows.reasons.values()) == 1, "the rows the model is built with are not counted twice"


def test_a_regression_reads_numbers(tmp_path, tiny_model):
    values = config(tiny_model, tmp_path, label_name="extra", label_enumerate_values=None, append_feature_columns=None)
    app = base_model(values, mode="train_on_the_fly")
    preprocessor = preprocessors.get_preprocessor(str(tiny_model), feature_type="regression")
    assert app.job.data.label_name == "extra"
    encoded = preprocessor.encode(next(reader().chunks()))
    assert encoded.columns["label_id"].tolist() == [0, 0.5, 1, 1.5, 2, 2.5]
    with pytest.raises(DataError, match="not a number: 'yes'"):
        base_model(config(tiny_model, tmp_path, label_enumerate_values=None), mode="train_on_the_fly")
        preprocessors.get_preprocessor(str(tiny_model)).encode(next(reader().chunks()))


def test_appended_columns_must_exist(tmp_path, tiny_model):
    app = Classifier(config(tiny_model, tmp_path, append_feature_columns="extar:float:1"), mode="train_on_the_fly")
    with pytest.raises(ConfigError, match="extar"):
        app.run_train(reader())


def test_appended_columns_take_no_place_of_encoded_ones(tmp_path, tiny_model):
    values = config(tiny_model, tmp_path, append_feature_columns="input_ids:float:1")
    app = Classifier(values, mode="train_on_the_fly")
    rows = [{**row, "input_ids": 0.5} for row in ROWS]
    with pytest.raises(ConfigError, match="append_feature_columns names a column .* makes; got 'input_ids'"):
        app.run_train(reader(rows, f"{SCHEMA},input_ids:float:1"))


def test_texts_of_other_types_are_read_as_text(tmp_path, tiny_model):
    rows = [{**row, "text": number} for number, row in enumerate(ROWS)]
    schema = SCHEMA.replace("text:str", "text:int")
    assert schema != SCHEMA
    app = Classifier(config(tiny_model, tmp_path, input_schema=schema), mode="train_on_the_fly")
    table = reader(rows, schema)
    task = app._new_task(table, ("train",))
    chunk, encoded = next(app._encoded(task, table))
    assert chunk.columns["text"] == [str(number) for number in range(len(ROWS))] and len(encoded) == len(ROWS)


def test_a_run_does_not_go_on_with_a_changed_table(tmp_path, tiny_model, monkeypatch):
    tables = [tmp_path / "train.jsonl", tmp_path / "dev.jsonl"]
    for table in tables:
        table.write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def stop(self, folder, *_):
        (folder.path / "model.ckpt-1").mkdir(exist_ok=True)
        raise Interrupted("stopped")

    monkeypatch.setattr(Classifier, "_fit", stop)
    app = Classifier(config(tiny_model, tmp_path / "run"), mode="train_and_evaluate_on_the_fly")
    for change, kind, message in (
        ("", Interrupted, "stopped"), ("evil", ConfigError, f"the training table has changed .*: {tables[0]}"),
    ):  # fmt: skip
        if change:
            tables[0].write_text("".join(json.dumps({**row, "text": change}) + "\n" for row in ROWS))
        with pytest.raises(kind, match=message):
            app.run_train_and_evaluate(*(JsonlReader(str(table), SCHEMA) for table in tables))


def test_a_feature_extractor_needs_no_checkpoint_of_its_own(tmp_path, tiny_model):
    class Vectors(base_model):
        def build_logits(self, features, mode=None):
            preprocessor = preprocessors.get_preprocessor(self.pretrain_model_name_or_path)
            model = model_zoo.get_pretrained_model(self.pretrain_model_name_or_path)
            assert model.config.hidden_size > 0
            if mode == "predict":
                return {"pooled": model(preprocessor(features)[:3], mode=mode)[1]}

        def build_predictions(self, predict_output):
            return predict_output

    values = config(tiny_model, tmp_path / "run", append_feature_columns=None)
    values["predict_config"]["predict_checkpoint_path"] = str(tiny_model)
    app = Vectors(values, mode="predict_on_the_fly")
    vectors = np.concatenate([batch["pooled"] for batch in app.run_predict(reader())])
    again = np.concatenate([b["pooled"] for b in app.run_predict(reader(), checkpoint_path=str(tiny_model))])
    np.testing.assert_array_equal(vectors, again)
    with pytest.raises(ModelError, match="there is no checkpoint"):
        list(app.run_predict(reader(), checkpoint_path=str(tmp_path / "typo")))


def test_export_of_a_text_application_takes_raw_text(trained, tiny_model):
    folder, _ = trained
    app = Classifier(config(tiny_model, folder), mode="export")
    serve = tf.saved_model.load(app.export_model()).signatures["serving_default"]
    assert set(serve.structured_input_signature[1]) == {"text", "extra"}
    extra = tf.constant([row["extra"] for row in ROWS], tf.float32)
    found = serve(text=tf.constant(TEXTS), extra=extra)["logits"]
    app = Classifier(config(tiny_model, folder), mode="predict_on_the_fly")
    expected = np.concatenate([batch["logits"] for batch in app.run_predict(reader())])
    np.testing.assert_allclose(found, expected, atol=1e-5)


# Kinds of preprocessors ----------------------------------------------------------------------------------------


def first_call(tiny_model, folder, schema, rows, name="train_on_the_fly", **options):
    """Returns what a preprocessor gives for the first batch, and the names of its columns."""
    found = {}

    class Looking(base_model):
        def build_logits(self, features, mode=None):
            preprocessor = preprocessors.get_preprocessor(self.pretrain_model_name_or_path, **options)
            found["names"], values = preprocessor.names, preprocessor(features)
            found["values"] = values
            return {"rows": tf.shape(values[0])[0]}

        def build_predictions(self, predict_output):
            return {"rows": tf.repeat(predict_output["rows"], predict_output["rows"])}

    values = config(tiny_model, folder, input_schema=schema, append_feature_columns=None)
    values["preprocess_config"] |= {"second_sequence": "text2"} if "text2" in schema else {}
    values["predict_config"] = {}
    app = Looking(values, mode="predict_on_the_fly")
    batch = next(app.run_predict(MemoryReader(rows, schema)))
    assert batch["rows"].tolist() == [len(rows)] * len(rows)
    return app, found


def test_multi_label_ids_are_padded_with_minus_one(tmp_path, tiny_model):
    rows = [{"text": "a", "label": "yes,no"}, {"text": "b", "label": "no"}]
    app = base_model(config(tiny_model, tmp_path, append_feature_columns=None), mode="train_on_the_fly")
    preprocessor = preprocessors.get_preprocessor(str(tiny_model), multi_label=True)
    batch = preprocessor.encode(next(MemoryReader(rows, "text:str:1,label:str:1").chunks())).batch(
        [0, 1], pad_multiple=1
    )
    assert batch["label_id"].tolist() == [[1, 0], [0, -1]] and app.config.on_the_fly

    class Several(Classifier):
        def build_logits(self, features, mode=None):
            preprocessor = preprocessors.get_preprocessor(self.pretrain_model_name_or_path, multi_label=True)
            model = model_zoo.get_pretrained_model(self.pretrain_model_name_or_path)
            *tokens, labels = preprocessor(features)
            return layers.Dense(2)(model(tokens, mode=mode)[1]), labels

        def build_loss(self, logits, labels):
            return multi_label_sigmoid_cross_entropy(labels, 2, logits)

        def build_eval_metrics(self, logits, labels):
            return multi_label_eval_metrics(logits, labels, 2)

    app = Several(
        config(tiny_model, tmp_path / "run", append_feature_columns=None), mode="train_and_evaluate_on_the_fly"
    )
    several = [*rows, {"text": "c", "label": "yes"}]
    metrics = app.run_train_and_evaluate(*(MemoryReader(several, "text:str:1,label:str:1") for _ in range(2)))
    assert set(metrics) > {"py_micro_f1", "py_mean_auc"}


def test_paired_texts_are_both_encoded_from_cls(tmp_path, tiny_model):
    """The original gave the second text no [CLS] and segment 1."""
    rows = [{"text": "good", "text2": "bad day"}, {"text": "hot food", "text2": "nice"}]
    app, found = first_call(tiny_model, tmp_path, "text:str:1,text2:str:1", rows, is_paired=True)
    assert found["names"] == tuple(f"{n}_{s}" for s in "ab" for n in ("input_ids", "input_mask", "segment_ids"))
    tokenizer = WordPiece.from_folder(tiny_model)
    preprocessor = preprocessors.get_preprocessor(str(tiny_model), is_paired=True)
    batch = preprocessor.encode(next(MemoryReader(rows, "text:str:1,text2:str:1").chunks())).batch([0, 1])
    for side, column in (("a", "text"), ("b", "text2")):
        expected = tokenizer.encode([row[column] for row in rows], max_length=8).input_ids
        for row in range(2):
            real = batch[f"input_mask_{side}"][row].sum()
            assert batch[f"input_ids_{side}"][row][:real].tolist() == expected[row].tolist()
        assert not batch[f"segment_ids_{side}"].any()
    assert app.second_sequence == "text2" and found["values"][-1] is None, "no label column, no labels"


def test_pretraining_hides_pieces(tmp_path, tiny_model):
    rows = [{"text": text} for text in TEXTS]
    values = config(tiny_model, tmp_path, max_predictions_per_seq=3, sequence_length=16, append_feature_columns=None)
    app = base_model(values, mode="preprocess")
    preprocessor = preprocessors.get_preprocessor(str(tiny_model), app_model_name="pretrain_language_model")
    chunk = next(MemoryReader(rows, "text:str:1").chunks())
    found = preprocessors.fixed_arrays(preprocessor.encode(chunk), 16)
    plain = preprocessors.fixed_arrays(preprocessors.get_preprocessor(str(tiny_model)).encode(chunk), 16)
    assert found["masked_lm_positions"].shape == (6, 3) and app.max_predictions_per_seq == 3
    for row in range(6):
        hidden = found["masked_lm_weights"][row] > 0
        places = found["masked_lm_positions"][row][hidden]
        assert len(places) and plain["input_ids"][row][places].tolist() == found["masked_lm_ids"][row][hidden].tolist()
        changed = np.flatnonzero(found["input_ids"][row] != plain["input_ids"][row])
        assert set(changed) <= set(places)
    # Unlike the original's random module, the choice depends on the seed and the row alone.
    again = preprocessors.fixed_arrays(preprocessor.encode(chunk), 16)
    np.testing.assert_array_equal(found["input_ids"], again["input_ids"])


def test_settings_of_other_preprocessors_are_explained(tiny_model):
    with pytest.raises(ConfigError, match="no preprocessor of its own.*easy_transfer_app preprocess"):
        preprocessors.get_preprocessor(str(tiny_model), app_model_name="text_comprehension_bert")
    with pytest.raises(ConfigError, match="unknown setting 'thread_nun'; did you mean thread_num"):
        preprocessors.get_preprocessor(str(tiny_model), thread_nun=2)


# Preprocessing to tables ---------------------------------------------------------------------------------------


class Serialize(base_model):
    """Token ids as predictions."""

    def build_logits(self, features, mode=None):
        return preprocessors.get_preprocessor(self.config.tokenizer_name_or_path)(features)

    def build_predictions(self, predict_output):
        return dict(zip(("input_ids", "input_mask", "segment_ids", "label_id"), predict_output, strict=True))


def test_preprocess_writes_ids_of_one_length_in_order(tmp_path, tiny_model):
    rows, _ = serialize(tiny_model, tmp_path)
    expected = WordPiece.from_folder(tiny_model).encode(TEXTS, max_length=8)
    for row, cells in enumerate(rows):
        ids, mask, segments = ([int(value) for value in cell.split(",")] for cell in cells[:3])
        real = len(expected.input_ids[row])
        assert ids == [*expected.input_ids[row].tolist(), *[0] * (8 - real)]
        assert mask == [1] * real + [0] * (8 - real) and segments == [0] * 8
    assert [row[3] for row in rows] == ["1", "0", "1", "0", "1", "0"]
    # The table can be trained on, in the mode without `on_the_fly`.
    table = CSVReader(str(tmp_path / "ids.tsv"), "input_ids:int:8,input_mask:int:8,segment_ids:int:8,label_id:int:1")
    assert next(table.batches())["input_ids"].shape == (6, 8)


def test_run_does_what_the_mode_says(tmp_path, tiny_model, capsys):
    values = config(tiny_model, tmp_path, tokenizer_name_or_path=str(tiny_model), append_feature_columns=None)
    (tmp_path / "raw.tsv").write_text("".join(f"{r['text']}\t{r['extra']}\t{r['label']}\n" for r in ROWS))
    values["preprocess_config"] |= {
        "output_schema": "input_ids,extra",
        "preprocess_input_fp": str(tmp_path / "raw.tsv"),
        "preprocess_output_fp": str(tmp_path / "ids.tsv"),
    }
    Serialize(values, mode="preprocess").run()
    result = json.loads(capsys.readouterr().out)
    assert (result["mode"], result["read"], result["written"], result["rejected"]) == ("preprocess", 6, 6, 0)
    assert len((tmp_path / "ids.tsv").read_text().splitlines()) == 6
    with pytest.raises(ConfigError, match="exists"):
        Serialize(values, mode="preprocess").run()
    Serialize(values | {"runtime_config": {"overwrite": True}}, mode="preprocess").run()
    with pytest.raises(ConfigError, match="there is no table to predict; give --tables"):
        Serialize(
            config(tiny_model, tmp_path, output_schema="x") | {"predict_config": {"predict_output_fp": "o"}},
            mode="predict",
        ).run()
