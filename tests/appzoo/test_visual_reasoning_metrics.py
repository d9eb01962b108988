"""Accuracy and consistency of NLVR against cases worked by hand; its files, and drawn scenes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from appzoo.cli.main import main
from appzoo.drawn_scenes import COLOURS, FEATURE_SIZE, SHAPES, draw
from appzoo.visual_reasoning.metrics import NlvrEvaluator, nlvr_scores, sentence_of
from appzoo.visual_reasoning.readers import read_nlvr2, read_scenes
from appzoo.visual_reasoning.target import Truth
from appzoo.visual_reasoning.writers import write_nlvr
from easytransfer.data.app_forms import BadRecord
from easytransfer.data.labels import LabelMap
from easytransfer.errors import ConfigError, DataError


def test_rows_of_a_sentence_share_all_but_their_images():
    assert sentence_of("dev-850-0-1") == sentence_of("dev-850-3-1") != sentence_of("dev-850-0-0")
    assert sentence_of("3125-1") == sentence_of("3125-0") != sentence_of("312-5")
    for wrong in ("", "3125", "a-b-c", "a-b-c-d-e", "dev--0-1"):
        with pytest.raises(ValueError, match="wrong identifier"):
            sentence_of(wrong)


LABELS = {"dev-1-0-0": "True", "dev-1-1-0": "False", "dev-1-0-1": "True", "dev-2-0-0": "False", "dev-2-1-0": "False"}


def test_official_scores_worked_by_hand():
    right = {name: label.lower() for name, label in LABELS.items()}
    assert nlvr_scores(LABELS, right) == {"accuracy": 1, "consistency": 1}
    # One wrong row of sentence dev-1-*-0: four of five rows, two of three sentences.
    one_wrong = {**right, "dev-1-1-0": "True"}
    assert nlvr_scores(LABELS, one_wrong) == {"accuracy": 4 / 5, "consistency": 2 / 3}
    # A row that is missing is wrong, and rows that nobody asked for count nothing.
    missing = {name: label for name, label in one_wrong.items() if name != "dev-1-0-1"} | {"dev-9-0-0": "true"}
    assert nlvr_scores(LABELS, missing) == {"accuracy": 3 / 5, "consistency": 1 / 3}


def test_two_parts_are_sentence_and_images():
    labels = {"7-0": "true", "7-1": "false", "8-0": "true"}
    assert nlvr_scores(labels, {"7-0": "true", "7-1": "true", "8-0": "true"}) == {"accuracy": 2 / 3, "consistency": 0.5}


def batch_of(labels, sentences):
    objects = np.empty(len(sentences), object)
    objects[:] = sentences
    return {"label_id": np.int32(labels), "sentence": objects}


def test_the_evaluator_in_parts_is_the_one_of_all_rows():
    random = np.random.default_rng(0)
    labels, logits = random.integers(0, 2, 40), random.normal(size=[40, 2])
    sentences = [f"s{number}" for number in random.integers(0, 12, 40)]
    whole, merged = NlvrEvaluator(["false", "true"]), NlvrEvaluator(["false", "true"])
    whole.update(batch_of(labels, sentences), {"logits": logits})
    for part in np.array_split(random.permutation(40), 3):
        worker = NlvrEvaluator(["false", "true"])
        worker.update(batch_of(labels[part], [sentences[i] for i in part]), {"logits": logits[part]})
        merged.merge(worker.state())
    right = logits.argmax(1) == labels
    consistent = [all(r for r, s in zip(right, sentences, strict=True) if s == each) for each in set(sentences)]
    assert whole.result() == {"accuracy": right.mean(), "consistency": np.mean(consistent)} == merged.result()
    assert whole.report() == merged.report() and whole.report()["sentences"] == len(set(sentences))
    assert np.sum(whole.report()["confusion"]) == 40 and np.trace(whole.report()["confusion"]) == right.sum()


def test_without_identifiers_there_is_no_consistency():
    evaluator = NlvrEvaluator(["false", "true"])
    evaluator.update(batch_of([1, 0], [None, None]), {"logits": np.float32([[0, 1], [0, 1]])})
    assert evaluator.result() == {"accuracy": 0.5}
    assert np.isnan(list(NlvrEvaluator(["false", "true"]).result().values())).all()


def test_labels_are_read_whatever_their_case():
    target = Truth(LabelMap(["false", "true"]))
    assert [target.read(cell) for cell in ("True", "false", True, "TRUE")] == [1, 0, 1, 1]
    with pytest.raises(ValueError, match="unknown label"):
        target.read("maybe")


def test_files_of_nlvr2(tmp_path):
    path = tmp_path / "dev.nlvr2.json"
    lines = [
        json.dumps({"identifier": "dev-850-0-0", "sentence": "Two dogs.", "label": "True", "left_url": "x"}),
        json.dumps({"identifier": "test-3-1-2", "sentence": "A cat."}),
        json.dumps({"identifier": "3-1", "sentence": "A cat."}),
        json.dumps({"identifier": "dev-1-0-0"}),
        "{",
        "[]",
    ]
    path.write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    first, second, *bad = read_nlvr2(str(path))
    assert first == {
        "identifier": "dev-850-0-0",
        "sentence": "Two dogs.",
        "label": "True",
        "image_id": "dev-850-0-img0",
        "image_id_2": "dev-850-0-img1",
    }
    assert "label" not in second and second["image_id_2"] == "test-3-1-img1"
    assert all(isinstance(row, BadRecord) for row in bad)
    assert [row.reason.split(":")[0] for row in bad] == [
        "wrong identifier",
        "missing value",
        "damaged JSON",
        "damaged JSON",
    ]


def test_the_result_file(tmp_path):
    path = tmp_path / "out.nlvr.csv"
    write_nlvr(
        path, iter([{"identifier": "dev-1-0-0", "predictions": "true"}, {"identifier": "b", "predictions": "false"}])
    )
    assert path.read_text() == "dev-1-0-0,True\nb,False\n"
    with pytest.raises(ConfigError, match="--appendCols=identifier"):
        write_nlvr(path, iter([{"predictions": "true"}]))
    with pytest.raises(ConfigError, match="twice"):
        write_nlvr(path, iter([{"identifier": "b", "predictions": "true"}] * 2))


def test_the_verb_scores_a_result_file(tmp_path, capfd):
    rows = [
        {"identifier": name, "label": label, "sentence": "s", "boxes": [[{"x": 1}]]} for name, label in LABELS.items()
    ]
    table, predictions = tmp_path / "gold.jsonl", tmp_path / "out.nlvr.csv"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    # Sentence dev-2-*-0 is right as a whole, one row of the others is wrong or missing.
    lines = ["dev-1-0-0,True", "dev-1-1-0,True", "dev-2-0-0,false", "dev-2-1-0,False"]
    predictions.write_text("\n".join(lines) + "\n", encoding="utf-8")
    flags = [f"--predictions={predictions}", f"--inputTable={table}"]
    assert main(["score_nlvr", *flags]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found == {"accuracy": 3 / 5, "consistency": 1 / 3, "rows": 5, "missing": 1}
    for wrong, why in (("dev-1-0-0", "no prediction"), (lines[0], "twice")):
        predictions.write_text("\n".join([*lines, wrong]) + "\n", encoding="utf-8")
        assert main(["score_nlvr", *flags]) == 3
        assert f"{predictions}:5: " in (error := capfd.readouterr().err) and why in error
    table.write_text(json.dumps({**rows[0], "identifier": "a-b-c"}) + "\n", encoding="utf-8")
    assert main(["score_nlvr", *flags]) == 3 and "wrong identifier" in capfd.readouterr().err


# Drawn scenes ----------------------------------------------------------------------------------------------------


def test_objects_of_a_scene_are_different_and_lie_in_it():
    random = np.random.default_rng(0)
    for _ in range(50):
        scene = draw(random, 9, 1.0)
        assert len(set(scene.names())) == 9 and scene.features.shape == (9, FEATURE_SIZE)
        assert (scene.boxes >= 0).all() and (scene.boxes <= 1).all()
        assert (scene.boxes[:, 2:] > scene.boxes[:, :2]).all()
        # Cells of a grid keep boxes apart.
        cells = np.floor(scene.boxes[:, :2] * 3)
        assert len(np.unique(cells, axis=0)) == 9


def test_vectors_tell_shapes_and_colours():
    random, vectors = np.random.default_rng(0), {}
    for _ in range(40):
        scene = draw(random, 4, 0.0)
        for name, vector in zip(scene.names(), scene.features, strict=True):
            assert np.array_equal(vectors.setdefault(name, vector), vector)
    # What two shapes differ by is the same in every colour.
    of = {(c, s): vectors.get(f"{c} {s}") for c in COLOURS for s in SHAPES}
    known = [c for c in COLOURS if of[c, "circle"] is not None and of[c, "star"] is not None]
    steps = [of[c, "star"] - of[c, "circle"] for c in known]
    assert len(known) > 1 and np.allclose(steps, steps[0])


@pytest.mark.parametrize("images", [1, 2])
def test_drawn_sentences_are_true_of_what_is_drawn(tmp_path, images):
    path = tmp_path / "some.sentences"
    text = f'{{"seed": 3, "rows": 80, "objects": 3, "kinds": 4, "noise": 0, "images": {images}}}'
    path.write_text(text, encoding="utf-8")
    rows = list(read_scenes(str(path)))
    vectors = {}
    random = np.random.default_rng(0)
    for _ in range(200):
        scene = draw(random, 4, 0.0)
        vectors |= dict(zip(scene.names(), scene.features, strict=True))
    for row in rows:
        name = " ".join(row["sentence"].split()[-2:])
        there = []
        for suffix in ("", "_2")[:images]:
            features = np.reshape(row[f"features{suffix}"], [-1, FEATURE_SIZE])
            there.append(bool((np.abs(features - vectors[name]).max(axis=1) < 1e-3).any()))
        assert row["label"] == str(all(there)).lower()
    assert np.mean([row["label"] == "true" for row in rows]) == 0.5
    assert len({sentence_of(row["identifier"]) for row in rows}) == 20
    path.write_text(text.replace("80", "82"), encoding="utf-8")
    with pytest.raises(DataError, match="a multiple of 4"):
        list(read_scenes(str(path)))
