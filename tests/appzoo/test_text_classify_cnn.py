"""What is special about text_classify_cnn: words of the training table, word vectors, settings, targets."""

from pathlib import Path

import numpy as np
import pytest

from appzoo.text_classify.config import CnnClassifyConfig
from easytransfer.config.fields import settings_of
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import BadRows, open_table
from easytransfer.errors import ConfigError, EasyTransferError, ModelError
from easytransfer.train.step import EVALUATION

TEXTS = ["the food was good", "the staff was rude", "good good staff", "rude food"]
SMALL = {"embedding_size": 4, "num_filters": [3, 2], "filter_sizes": [2, 3]}


def make_app(labels="bad,good", data=None, train=None, prepare=True, **model):
    from appzoo.text_classify.app import CnnClassify

    values = {"first_sequence": "text", "label_name": "label", "label_enumerate_values": labels, "sequence_length": 6}
    app = CnnClassify(
        CnnClassifyConfig.model_validate(
            {
                "model_name": "text_classify_cnn",
                "data": values | (data or {}),
                "train": train or {},
                "model": SMALL | model,
            }
        )
    )
    if prepare:
        app.load_assets(None, lambda column: TEXTS if column == "text" else ["bad", "good"])
    return app


def encode(app, tmp_path, lines, schema="text:str:1,label:str:1"):
    path = tmp_path / "table.tsv"
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    bad = BadRows("skip")
    table = open_table(str(path), schema=parse_schema(schema), data=app.config.data, bad_rows=bad)
    (chunk,) = table.chunks()
    return app.encode(chunk, with_labels=True), table.count, bad


def loss_of(app, encoded):
    import tensorflow as tf

    batch = {name: tf.constant(value) for name, value in encoded.batch(range(len(encoded))).items()}
    outputs = app.forward(batch)
    total, weight = app.losses(batch, outputs, EVALUATION)["loss"]
    return float(total / weight), outputs["logits"].numpy()


def test_default_parameters_are_those_of_the_original():
    model = CnnClassifyConfig().model
    found = {name: getattr(model, name) for name in ("max_vocab_size", "embedding_size", "dropout_rate")}
    assert found == {"max_vocab_size": 30000, "embedding_size": 300, "dropout_rate": 0.5}
    assert (model.num_filters, model.filter_sizes) == ([100, 100, 100], [3, 4, 5])
    assert not model.fix_embedding and model.pretrain_word_embedding_name_or_path is None


def test_lists_are_read_from_the_original_comma_form():
    model = {"num_filters": "10,20", "filter_sizes": "2,3", "pretrain_word_embedding_name_or_path": ""}
    config = CnnClassifyConfig.model_validate({"model": model})
    assert config.model.num_filters == [10, 20] and config.model.pretrain_word_embedding_name_or_path is None
    assert {s.name: s.kind for s in settings_of(CnnClassifyConfig)}["num_filters"] == "list of int"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": {"num_filters": [3], "filter_sizes": [2, 3]}}, "num_filters.*filter_sizes"),
        ({"model": {"num_filters": [], "filter_sizes": []}}, "num_filters.*filter_sizes"),
        ({"model": {"num_filters": [0], "filter_sizes": [2]}}, ">= 1"),
        ({"data": {"second_sequence": "other"}}, "reads one text"),
        ({"model": {"multi_label": True}, "train": {"class_weights": "balanced"}}, "class_weights"),
    ],
)
def test_settings_that_do_not_fit_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        CnnClassifyConfig.model_validate(values)


def test_words_come_from_the_training_table_and_rows_are_accounted(tmp_path):
    app = make_app()
    assert app.vocabulary.words[6:] == ["good", "food", "rude", "staff", "the", "was"]
    encoded, count, bad = encode(
        app, tmp_path, ["Good  NEW food\tgood", "\tbad", "the the the the the the the\tbad", "x\tso"]
    )
    assert (count.read, count.accepted, count.rejected) == (4, 3, 1) and bad.reasons == {"unknown label": 1}
    assert [row.tolist() for row in encoded.columns["input_ids"]] == [[6, 1, 7], [], [10] * 6]
    assert encoded.columns["label_id"].tolist() == [1, 0, 0]
    assert app.text_counts == {"rows": 3, "truncated": 1, "tokens": 9, "unknown": 1}
    batch = encoded.batch(range(3), pad_multiple=1)
    np.testing.assert_array_equal(batch["input_mask"].sum(1), [3, 0, 6])


def test_no_truncate_rejects_long_rows(tmp_path):
    app = make_app(data={"no_truncate": True})
    encoded, count, bad = encode(app, tmp_path, ["the the the the the the the\tbad", "the\tbad"])
    assert len(encoded) == 1 and bad.reasons == {"too long": 1} and count.rejected == 1


def test_frequency_and_size_bound_the_vocabulary():
    assert make_app(min_word_count=3).vocabulary.words[6:] == ["good"]
    assert len(make_app(max_vocab_size=8).vocabulary) == 8
    assert make_app(split_characters="all").vocabulary.words[6] == "o"


def test_without_a_training_table_or_a_run_there_are_no_words(tmp_path):
    app = make_app(prepare=False)
    with pytest.raises(ConfigError, match="train first"):
        app.load_assets(None)
    with pytest.raises(ModelError, match=r"train_vocab\.txt"):
        app.load_assets(tmp_path)


def test_words_of_the_run_whose_weights_are_taken_are_kept(tmp_path):
    first = make_app()
    step = tmp_path / "run" / "model.ckpt-7"
    step.mkdir(parents=True)
    (step / "state.json").write_text("{}")
    first.save_assets(tmp_path / "run")
    second = make_app(train={"init_checkpoint_path": str(step)}, prepare=False)
    second.load_assets(None, lambda column: ["other words"])
    assert second.vocabulary.words == first.vocabulary.words


def test_word_vectors_start_the_embedding_and_may_be_fixed(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("2 4\ngood 1 2 3 4\nrude 5 6 7 8\n")
    app = make_app(pretrain_word_embedding_name_or_path=str(path), fix_embedding=True)
    vectors = app.build_model().embedding.embeddings.numpy()
    np.testing.assert_array_equal(vectors[[6, 8]], [[1, 2, 3, 4], [5, 6, 7, 8]])
    assert np.abs(np.delete(vectors, [6, 8], axis=0)).max() < 0.06
    embeddings, networks, head = app.layer_groups()
    assert embeddings == [] and len(networks) == 4 and len(head) == 2
    assert len(app.model.trainable_variables) == 6 and len(app.model.weights) == 7
    with pytest.raises(ConfigError, match="embedding_size=4"):
        make_app(pretrain_word_embedding_name_or_path=str(path), embedding_size=5).build_model()


def test_layer_groups_hold_every_trainable_variable_once():
    app = make_app()
    model = app.build_model()
    grouped = [id(variable) for group in app.layer_groups() for variable in group]
    assert sorted(grouped) == sorted(id(variable) for variable in model.trainable_variables)


def test_every_kind_of_target_against_numpy(tmp_path):
    rows = ["the food was good\tgood", "rude\tbad"]
    app = make_app()
    app.build_model()
    encoded, _, _ = encode(app, tmp_path, rows)
    loss, logits = loss_of(app, encoded)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert loss == pytest.approx(-np.log(probabilities[[0, 1], [1, 0]]).mean(), rel=1e-5)

    app = make_app("bad,good,odd", multi_label=True)
    app.build_model()
    encoded, _, _ = encode(app, tmp_path, ["the food was good\tgood,odd", "rude\tbad"])
    loss, logits = loss_of(app, encoded)
    hot, sigmoid = np.array([[0, 1, 1], [1, 0, 0]]), 1 / (1 + np.exp(-logits))
    assert loss == pytest.approx(-(hot * np.log(sigmoid) + (1 - hot) * np.log(1 - sigmoid)).mean(), rel=1e-5)

    app = make_app("none")
    app.build_model()
    encoded, _, _ = encode(app, tmp_path, ["good\t2.5", "rude\t-1"])
    loss, logits = loss_of(app, encoded)
    assert loss == pytest.approx(((np.array([2.5, -1]) - logits[:, 0]) ** 2).mean(), rel=1e-5)
    assert app.output_columns() == ("predictions", "logits")


def test_raw_text_is_answered_like_encoded_rows(tmp_path):
    app = make_app("bad,good", multi_label=False)
    app.build_model()
    encoded, _, _ = encode(app, tmp_path, ["The FOOD was good\tgood", "\tbad", "unheard of\tbad"])
    _, logits = loss_of(app, encoded)
    signatures = app.signatures(Path(tmp_path))
    assert {"serving_default", "predict_ids", "labels", "classify"} == signatures.keys()
    served = signatures["serving_default"].function(text=["The FOOD was good", "", "unheard of"])
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(served["probabilities"], expected, rtol=1e-5)
    assert [name.decode() for name in served["label"].numpy()] == app.postprocess({"logits": logits}, encoded)[
        "predictions"
    ]
    names = signatures["labels"].function(class_id=np.int32([[0, 1], [1, 1]]))["label"].numpy()
    assert names.tolist() == [[b"bad", b"good"], [b"good", b"good"]]


# Bad tables --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "labels", "message"),
    [
        (b"good\tgood\nbad\thappy\n", "bad,good", r"train.tsv:2.*label.*unknown label: 'happy'; known: bad, good"),
        (b"good,good\nbad,bad\n", "bad,good", r"train.tsv:1: wrong column count: expected 2, got 1"),
        (b"good\tgood\n\x89PNG\r\n\x1a\n\x00\xff\tbad\n", "bad,good", r"train.tsv:2.*UTF-8"),
        (b"good\tgood\n", "good,good", "twice|unique|duplicate"),
        (b"good\t1.5\nbad\tmany\n", None, r"train.tsv:2.*label.*not a number: 'many'"),
    ],
)
def test_bad_tables_are_named_by_file_row_and_column(tmp_path, content, labels, message):
    from appzoo.jobs import train

    (tmp_path / "train.tsv").write_bytes(content)
    data = {"train_table": str(tmp_path / "train.tsv"), "eval_table": str(tmp_path / "train.tsv")}
    app = make_app(labels, data=data | {"input_schema": "text:str:1,label:str:1"}, prepare=False)
    config = app.config.model_copy(
        update={
            "checkpoint_dir": str(tmp_path / "run"),
            "runtime": app.config.runtime.model_copy(update={"dry_run": True}),
        }
    )
    with pytest.raises(EasyTransferError, match=message):
        train(config)
