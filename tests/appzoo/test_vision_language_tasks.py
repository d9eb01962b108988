"""Tasks on a text and regions: rows to arrays, outputs to columns, requests answered as rows are, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf

from appzoo.jobs.tables import load_rows
from appzoo.referring_expression.app import ReferringExpression
from appzoo.referring_expression.config import ReferringConfig
from appzoo.vision_language_head import TaskHead
from appzoo.visual_question_answering.app import QuestionAnswering
from appzoo.visual_question_answering.config import VqaConfig
from appzoo.visual_reasoning.app import VisualReasoning
from appzoo.visual_reasoning.config import ReasoningConfig
from easytransfer.data.bad_rows import BadRows
from easytransfer.data.regions import ImageRegions, write_region_records
from easytransfer.errors import ConfigError
from easytransfer.train.step import EVALUATION

TINY = "examples/drawn_scenes/tiny-bert"
SIZE, MOST, (HEIGHT, WIDTH) = 5, 3, (40, 80)
ANSWERS = [["red"] * 6 + ["blue"] * 4, ["blue"] * 10, ["yes"] * 4 + ["no"] * 6]
RANDOM = np.random.default_rng(7)
COUNTS = (3, 1, 2)
FEATURES = RANDOM.normal(size=[3, MOST, SIZE]).astype(np.float32)
# x1, y1, x2, y2 in pixels.
BOXES = np.float32([
    [[0, 0, 20, 20], [20, 10, 40, 40], [40, 0, 80, 40]],
    [[8, 4, 24, 12]] * 3,
    [[0, 0, 80, 40], [10, 10, 30, 30], [0, 0, 1, 1]],
])  # fmt: skip
APPS = {
    "visual_question_answering": (QuestionAnswering, VqaConfig),
    "visual_reasoning": (VisualReasoning, ReasoningConfig),
    "referring_expression": (ReferringExpression, ReferringConfig),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A region file with three images."""
    found = tmp_path_factory.mktemp("regions")
    images = []
    for number, count in enumerate(COUNTS):
        boxes = BOXES[number, :count] / [WIDTH, HEIGHT, WIDTH, HEIGHT]
        images.append((f"image{number}", ImageRegions(FEATURES[number, :count], boxes, size=(HEIGHT, WIDTH))))
    write_region_records(found / "some.tfrecord", images)
    return found


@pytest.fixture
def make_app(repository, folder, monkeypatch):
    """Function (application, settings of the data, of the model) -> application with a network of random weights."""
    monkeypatch.chdir(repository)

    def make(name, data=None, model=None, cells=()):
        app_class, config_class = APPS[name]
        records = {"region_file": f"{folder}/some.tfrecord", "image_column": "image_id", "sequence_length": 8}
        network = {"pretrain_model_name_or_path": TINY, "from_scratch": True, "feature_size": SIZE, "max_regions": MOST}
        sections = {
            "data": {**records, **(data or {})},
            "model": {**network, "region_source": "records", **(model or {})},
        }
        app = app_class(config_class(model_name=name, **sections))
        app.load_assets(None, lambda column: cells)
        app.build_model()
        return app

    return make


def loaded(app, tmp_path, rows, bad="fail", labelled=True):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load_rows(app, str(path), labelled, BadRows(bad))


def arrays_of(app, table):
    batch = table.batch(np.arange(len(table)), pad_multiple=1)
    return batch, {name: tf.constant(value) for name, value in app.evaluation_inputs(batch).items()}


def request(prefix="", order=(0, 1, 2)):
    found = {"features": FEATURES, "num_regions": np.int32(COUNTS), "boxes": BOXES}
    found["image_size"] = np.int32([[HEIGHT, WIDTH]] * 3)
    return {f"{prefix}{name}": tf.constant(value[list(order)]) for name, value in found.items()}


def test_the_head_is_the_published_formula():
    head, vectors = TaskHead(6, 2), np.random.default_rng(0).normal(size=[4, 3]).astype(np.float32)
    found = head(tf.constant(vectors)).numpy()
    first, bias, scale, shift, last, end = (variable.numpy().astype(np.float64) for variable in _ordered(head))
    hidden = vectors @ first + bias
    hidden = hidden * 0.5 * (1 + np.vectorize(_erf)(hidden / np.sqrt(2)))
    normal = (hidden - hidden.mean(1, keepdims=True)) / np.sqrt(hidden.var(1, keepdims=True) + 1e-12)
    assert found == pytest.approx((normal * scale + shift) @ last + end, abs=1e-5)


def _ordered(head):
    return [*head.hidden.variables, head.norm.gamma, head.norm.beta, *head.out.variables]


def _erf(x):
    from math import erf

    return erf(x)


def questions():
    rows = zip(("what colour?", "what is red?", "is there a star?"), ANSWERS, ("other", "other", "yes/no"), strict=True)
    return [
        {"question": text, "image_id": f"image{i}", "answers": answers, "kind": kind}
        for i, (text, answers, kind) in enumerate(rows)
    ]


def test_questions_from_rows_to_answers(make_app, tmp_path):
    app = make_app("visual_question_answering", {"answer_type_name": "kind"}, {"min_answer_count": 1}, ANSWERS)
    assert app.labels == ["blue", "no", "red"]
    table = loaded(app, tmp_path, questions()).encoded
    batch, arrays = arrays_of(app, table)
    # red 6 of 10 and blue 4 of 10 are both wholly right; of the last one only no is known.
    assert batch["answer_ids"][:, :3].tolist() == [[2, 0, -1], [0, -1, -1], [1, -1, -1]]
    assert batch["answer_scores"][:, :2].tolist() == [[1, 1], [1, 0], [1, 0]]
    outputs = {"logits": app.predict_step(arrays)["logits"].numpy()}
    rows = app.postprocess(outputs, table)
    assert rows["predictions"] == [app.labels[i] for i in outputs["logits"].argmax(1)]
    assert rows["score"] == pytest.approx(1 / (1 + np.exp(-outputs["logits"].max(1))), rel=1e-5)
    assert sorted(rows["top5"][0]) == ["blue", "no", "red"]
    assert app.evaluator().main_metric == "vqa_accuracy"
    app.save_assets(tmp_path)
    signatures = app.signatures(tmp_path)
    served = signatures["serving_default"].function(
        question=tf.constant([row["question"] for row in questions()]), **request()
    )
    assert [name.decode() for name in served["answer"].numpy()] == rows["predictions"]
    # Features of a region file have 16 bits, boxes are divided before.
    assert served["top5_score"].numpy() == pytest.approx(np.stack(rows["top5_score"]), abs=2e-4)
    assert [[name.decode() for name in row] for row in served["top5"].numpy()] == rows["top5"]
    names = signatures["labels"].function(class_id=[[0, 1, 2]])["label"].numpy()
    assert [name.decode() for name in names[0]] == app.labels


def test_questions_that_cannot_be_used(make_app, tmp_path):
    app = make_app("visual_question_answering", model={"min_answer_count": 1}, cells=ANSWERS)
    good, *_ = questions()
    rows = [good, {**good, "answers": ["red"] * 3}, {**good, "answers": []}, {**good, "image_id": "image9"}]
    found = loaded(app, tmp_path, rows, bad="skip")
    assert len(found.encoded) == 1 and sum(found.reasons.values()) == 3
    assert found.reasons["wrong number of answers"] == 1 and found.reasons["empty answer"] == 1


SENTENCES = ("there is a star", "both images have a red circle", "there is a circle")


def sentences(second=False):
    return [
        {
            "sentence": text,
            "label": ("True", "false", "TRUE")[i],
            "identifier": f"dev-1-{i}-0",
            "image_id": f"image{i}",
            **({"image_id_2": f"image{2 - i}"} if second else {}),
        }
        for i, text in enumerate(SENTENCES)
    ]


@pytest.mark.parametrize("paired", [False, True])
def test_sentences_from_rows_to_answers(make_app, tmp_path, paired):
    data = {"identifier_name": "identifier", **({"image_column_2": "image_id_2"} if paired else {})}
    app = make_app("visual_reasoning", data)
    table = loaded(app, tmp_path, sentences(paired)).encoded
    batch, arrays = arrays_of(app, table)
    assert batch["label_id"].tolist() == [1, 0, 1] and list(batch["sentence"]) == ["dev-1--0"] * 3
    logits = app.predict_step(arrays)["logits"].numpy()
    rows = app.postprocess({"logits": logits}, table)
    total, weight = app.losses({**arrays, "example_weight": tf.ones(3)}, {"logits": logits}, EVALUATION)["loss"]
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert float(total) == pytest.approx(-logs[[0, 1, 2], [1, 0, 1]].sum(), rel=1e-5) and float(weight) == 3
    app.save_assets(tmp_path)
    images = {**request("left_"), **request("right_", (2, 1, 0))} if paired else request()
    signatures = app.signatures(tmp_path)
    assert "classify" not in signatures
    served = signatures["serving_default"].function(text=tf.constant(SENTENCES), **images)
    assert [name.decode() for name in served["label"].numpy()] == rows["predictions"]
    assert served["probability"].numpy() == pytest.approx(np.stack(rows["probabilities"]).max(1), abs=2e-4)
    assert served["top5"].numpy()[:, 0].tolist() == served["label"].numpy().tolist()
    assert served["probabilities"].numpy() == pytest.approx(np.stack(rows["probabilities"]), abs=2e-4)


def test_both_images_are_read(make_app, tmp_path):
    app = make_app("visual_reasoning", {"image_column_2": "image_id_2"})
    rows = sentences(second=True)
    _, arrays = arrays_of(app, loaded(app, tmp_path, rows).encoded)
    before = app.predict_step(arrays)["logits"].numpy()
    for name in ("features", "features_2"):
        after = app.predict_step({**arrays, name: arrays[name] + 1.0})["logits"].numpy()
        assert (np.abs(after - before).max(axis=1) > 1e-4).all(), name
    # One network reads both: exchanged images exchange their halves of what the head reads.
    names = ("features", "boxes", "region_mask")
    exchanged = {**arrays, **{n: arrays[f"{n}_2"] for n in names}, **{f"{n}_2": arrays[n] for n in names}}
    first, _ = tf.split(app.model.head.hidden.kernel, 2, axis=0)
    app.model.head.hidden.kernel.assign(tf.concat([first, first], axis=0))
    same, other = (app.predict_step(each)["logits"].numpy() for each in (arrays, exchanged))
    assert same == pytest.approx(other, abs=1e-5)


def test_rows_of_another_form_are_bad_rows(make_app, tmp_path):
    app = make_app("visual_reasoning", {"identifier_name": "identifier"})
    good, *_ = sentences()
    found = loaded(app, tmp_path, [good, {**good, "identifier": "x"}, {**good, "label": "maybe"}], bad="skip")
    assert found.reasons == {"wrong identifier": 1, "unknown label": 1}


def expressions():
    # x, y, width, height: the third region; half of the only one; the second but for a column.
    boxes = [[40, 0, 40, 40], [8, 4, 8, 8], [11, 10, 20, 20]]
    texts = ("the star", "the circle", "the red square")
    return [
        {"expression": text, "image_id": f"image{i}", "target_box": box}
        for i, (text, box) in enumerate(zip(texts, boxes, strict=True))
    ]


def test_expressions_from_rows_to_regions(make_app, tmp_path):
    app = make_app("referring_expression")
    table = loaded(app, tmp_path, expressions()).encoded
    batch, arrays = arrays_of(app, table)
    assert batch["target_region"].tolist() == [2, -1, 1]
    assert [len(found) for found in batch["region_overlaps"]] == list(COUNTS)
    assert batch["region_overlaps"][1] == pytest.approx([0.5]) and batch["region_overlaps"][2][1] == pytest.approx(
        19 / 21
    )
    outputs = {name: value.numpy() for name, value in app.predict_step(arrays).items()}
    rows = app.postprocess(outputs, table)
    for row, count in enumerate(COUNTS):
        logits = outputs["region_logits"][row, :count]
        assert rows["region"][row] == logits.argmax() and len(rows["region_scores"][row]) == count
        assert rows["region_scores"][row] == pytest.approx(np.exp(logits) / np.exp(logits).sum(), abs=1e-5)
        assert rows["box"][row] == pytest.approx(BOXES[row, rows["region"][row]], abs=1e-3)
    app.save_assets(tmp_path)
    served = app.signatures(tmp_path)["serving_default"].function(
        text=tf.constant([row["expression"] for row in expressions()]), **request()
    )
    assert served["region"].numpy().tolist() == rows["region"]
    assert served["box"].numpy() == pytest.approx(np.stack(rows["box"]), abs=1e-2)
    scores = served["region_score"].numpy()
    assert scores.shape == (3, MOST) and scores.sum(1) == pytest.approx([1, 1, 1], abs=1e-5)
    assert (scores[np.arange(MOST) >= np.array(COUNTS)[:, None]] == 0).all()


def test_boxes_that_cannot_be_used(make_app, tmp_path):
    app = make_app("referring_expression")
    good, *_ = expressions()
    bad = [{**good, "target_box": box} for box in ([1, 2, 3], [0, 0, 0, 4])]
    found = loaded(app, tmp_path, [good, *bad, {**good, "image_id": "image9"}], bad="skip")
    assert len(found.encoded) == 1 and found.reasons["wrong box"] == 2 and sum(found.reasons.values()) == 3


def test_settings_that_do_not_fit(make_app):
    with pytest.raises(ConfigError, match=r"told apart by their boxes.*data.box_column"):
        make_app("referring_expression", {"region_file": None}, {"region_source": "table"})
    with pytest.raises(ConfigError, match=r"target_box_form=xywh is in pixels.*set it to shares"):
        make_app("referring_expression", {"region_file": None, "box_column": "boxes"}, {"region_source": "table"})
    with pytest.raises(ConfigError, match=r"there must be two labels.*false,true"):
        make_app("visual_reasoning", {"label_enumerate_values": "a,b,c"})
    for name in ("visual_question_answering", "referring_expression"):
        with pytest.raises(ValueError, match="label_enumerate_values does not apply"):
            make_app(name, {"label_enumerate_values": "a,b"})
    with pytest.raises(ValueError, match="box_column_2 is of the second image"):
        make_app(
            "visual_reasoning",
            {"region_file": None, "box_column": "a", "box_column_2": "b"},
            {"region_source": "table"},
        )
