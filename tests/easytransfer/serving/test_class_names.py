"""Names of classes in answers, over both protocols: some beside the numbers of each row, all of them when asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from running_server import Client, RunningServer

from appzoo.text_match.config import TwoTowerSettings
from appzoo.text_match.cosine_target import CosineMatch
from easytransfer.app.serving import labels_signature
from easytransfer.app.targets.labels import MultiLabel, Score, SingleLabel, best_ids
from easytransfer.data.labels import LabelMap
from easytransfer.export.saved_model import trace
from easytransfer.run.folder import THRESHOLD_FILE
from easytransfer.savedmodel.signature import Signature

NAMES = ["好评", "größer, Straße", "👍 gut", "мама", "não", 'so "so"', "x"]
# Of equal numbers, as the second and fourth of the second row, the lower one comes first.
LOGITS = np.float32([[0, 3, -1, 2.5, 1, -2, 0.5], [-4, 2, 1, 2, -0.5, 0, -1], [-9, -8, -7, -6, -5, -4, -3]])
THRESHOLD = 0.7


def before(logits: tf.Tensor) -> dict[str, tf.Tensor]:
    """What exports of one class per row answered before they had names of several."""
    probabilities = tf.nn.softmax(logits)
    label = tf.gather(tf.constant(NAMES), tf.argmax(logits, axis=-1))
    return {"probabilities": probabilities, "label": label, "score": tf.reduce_max(probabilities, axis=-1)}


def save(folder: Path, signatures: Mapping[str, Signature]) -> None:
    traced = {name: trace(signature) for name, signature in signatures.items()}
    tf.saved_model.save(tf.Module(), str(folder), signatures=traced)


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Iterator[Client]:
    """A client of a server of `names`, with targets as signatures on logits, and of `before`."""
    base, labels = tmp_path_factory.mktemp("models"), LabelMap(NAMES)
    (base / THRESHOLD_FILE).write_text(json.dumps({"threshold": 0.25}))
    match = CosineMatch(LabelMap(["другое", "то же"]), TwoTowerSettings(), base)
    several = MultiLabel(labels, max_num_labels=7, threshold=THRESHOLD)

    def on_logits(answer, *shape: int | None) -> Signature:
        return Signature(lambda x: answer({"logits": x}), {"x": tf.TensorSpec([None, *shape])}, {})

    save(base / "before" / "1", {"serving_default": on_logits(lambda outputs: before(outputs["logits"]), len(NAMES))})
    save(
        base / "names" / "1",
        {
            "serving_default": on_logits(SingleLabel(labels).answer, len(NAMES)),
            "several": on_logits(several.answer, len(NAMES)),
            "match": on_logits(match.answer),
            "number": on_logits(Score().answer, 1),
            "labels": labels_signature(NAMES),
        },
    )
    (base / THRESHOLD_FILE).unlink()
    with RunningServer(base) as running:
        yield running.client


def best(row: np.ndarray) -> list[str]:
    return [NAMES[i] for i in best_ids(row[None])[0]]


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_rows_have_the_names_of_the_best_classes(client):
    assert best(LOGITS[1]) == ["größer, Straße", "мама", "👍 gut", 'so "so"', "não"]
    rows = client.post("names:predict", {"instances": LOGITS.tolist()})["predictions"]
    for row, logits, probabilities in zip(rows, LOGITS, softmax(LOGITS), strict=True):
        assert row.keys() == {"probabilities", "label", "score", "top5", "top5_score"}
        assert row["top5"] == best(logits) and row["label"] == row["top5"][0]
        assert row["probabilities"] == pytest.approx(probabilities, rel=1e-5)
        assert row["top5_score"] == [row["probabilities"][NAMES.index(name)] for name in row["top5"]]
        assert row["score"] == row["top5_score"][0]
    answer = client.arrays("names", {"x": LOGITS})
    assert [[name.decode() for name in row] for row in answer["top5"]] == [best(row) for row in LOGITS]
    assert [name.decode() for name in answer["label"]] == ["größer, Straße", "größer, Straße", "x"]
    assert answer["top5_score"].dtype == np.float32


def test_what_was_answered_before_is_answered_to_the_byte_and_old_exports_still_are(client):
    old, new = (client.predict(name, {"x": LOGITS}).outputs for name in ("before", "names"))
    assert set(old) == {"probabilities", "label", "score"} == set(new) - {"top5", "top5_score"}
    for name in old:
        assert new[name].SerializeToString() == old[name].SerializeToString()
    rows = client.post("before:predict", {"instances": LOGITS.tolist()})["predictions"]
    assert [row["label"] for row in rows] == ["größer, Straße", "größer, Straße", "x"]


def test_several_labels_are_those_above_the_threshold(client):
    rows = client.post("names:predict", {"signature_name": "several", "instances": LOGITS.tolist()})["predictions"]
    for row, logits in zip(rows, LOGITS, strict=True):
        chosen = 1 / (1 + np.exp(-logits)) > THRESHOLD
        assert row["label"] == ",".join(name for name, yes in zip(NAMES, chosen, strict=True) if yes)
        assert row["top5"] == best(logits)
        assert row["top5_score"] == [row["probabilities"][NAMES.index(name)] for name in row["top5"]]
    assert [row["label"] for row in rows[:2]] == ["größer, Straße,мама,não", "größer, Straße,👍 gut,мама"]
    assert rows[2]["label"] == ""


def test_pairs_are_named_by_the_threshold_that_a_run_has_kept(client):
    answer = client.arrays("names", {"x": np.float32([-1, 0.25, 0.26, 0.4])}, signature="match")
    assert answer.keys() == {"score", "label", "probabilities"}
    assert [name.decode() for name in answer["label"]] == ["другое", "другое", "то же", "то же"]


def test_numbers_stay_numbers(client):
    values = np.float32([[0.1], [-3.0]])
    answer = client.arrays("names", {"x": values}, signature="number")
    assert answer.keys() == {"score"} and answer["score"].tobytes() == values[:, 0].tobytes()
    rows = client.post("names:predict", {"signature_name": "number", "instances": values.tolist()})["predictions"]
    assert np.float32(rows).tobytes() == values.tobytes()


def test_all_names_are_asked_for_once(client):
    facts = client.http.get("/v1/models/names/metadata").json()["metadata"]["signature_def"]["signature_def"]
    sizes = facts["serving_default"]["outputs"]["probabilities"]["tensor_shape"]["dim"]
    every = list(range(int(sizes[1]["size"])))
    reply = client.post("names:predict", {"signature_name": "labels", "instances": [every]})
    assert reply == {"predictions": [NAMES]}
    # More numbers than a request may have rows, which are 64.
    found = client.arrays("names", {"class_id": np.int32([every * 20])}, signature="labels")["label"]
    assert found.shape == (1, 140) and [name.decode() for name in found[0]] == NAMES * 20
    status, message = client.refused("names:predict", {"signature_name": "labels", "instances": [[7]]})
    assert status == 400 and "7 is not in [0, 7)" in message


def test_a_thousand_classes_send_five_names_a_row():
    target = SingleLabel(LabelMap([f"class {i}" for i in range(1000)]))
    logits = np.random.default_rng(0).normal(size=[64, 1000]).astype(np.float32)
    answer = target.answer({"logits": tf.constant(logits)})
    assert {name: value.shape.as_list() for name, value in answer.items() if value.dtype == tf.string} == {
        "label": [64],
        "top5": [64, 5],
    }
    assert target.answer({"logits": tf.zeros([0, 1000])})["top5"].shape == (0, 5)
