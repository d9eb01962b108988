"""Retrieval and matching metrics against brute force and scikit-learn."""

import json

import numpy as np
import pytest

from appzoo.text_match.metrics import MatchEvaluator, TwoTowerEvaluator, best_threshold, score_histogram, text_ids
from easytransfer.data.encoded import Ragged
from easytransfer.errors import ConfigError
from easytransfer.metrics import retrieval

RNG = np.random.default_rng(3)


def made_pairs(rows=60, size=6, texts=25):
    """Pairs of texts drawn from few, so that texts repeat on both sides, and both sides share some."""
    table = RNG.normal(size=(2 * texts, size)).astype(np.float32)
    first_ids, second_ids = RNG.integers(0, texts, rows), RNG.integers(texts // 2, texts // 2 + texts, rows)
    return table[first_ids], table[second_ids], first_ids, second_ids


def ranks_by_hand(first, second, first_ids, second_ids):
    """One comparison at a time."""

    def cosine(x, y):
        x, y = x.astype(np.float64), y.astype(np.float64)
        return x @ y / np.sqrt((x @ x) * (y @ y))

    texts = {int(text): second[row] for row, text in reversed(list(enumerate(second_ids)))}
    matches = {(int(a), int(b)) for a, b in zip(first_ids, second_ids, strict=True)}
    ranks = []
    for vector, a, b in zip(first, first_ids, second_ids, strict=True):
        own = cosine(vector, texts[int(b)])
        better = [
            text
            for text, candidate in texts.items()
            if (int(a), text) not in matches and text != int(a) and cosine(vector, candidate) >= own - 1e-9
        ]
        ranks.append(1 + len(better))
    return ranks


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_ranks_agree_with_brute_force_whatever_the_block(monkeypatch, block):
    pairs = made_pairs()
    monkeypatch.setattr(retrieval, "_BLOCK_SCORES", block)
    assert retrieval.pair_ranks(*pairs).tolist() == ranks_by_hand(*pairs)


def test_recall_and_mrr_of_known_ranks():
    found = retrieval.retrieval_metrics(np.array([1, 2, 5, 6, 11]))
    assert found["recall_at_1"] == 0.2 and found["recall_at_5"] == 0.6 and found["recall_at_10"] == 0.8
    assert found["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 5 + 1 / 6 + 1 / 11) / 5)
    assert all(np.isnan(value) for value in retrieval.retrieval_metrics(np.zeros(0)).values())


def test_a_repeated_second_text_is_one_candidate_and_a_hit_for_each_pair():
    first = np.array([[1, 0], [0.9, 0.1], [0, 1]], np.float32)
    second = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    assert retrieval.pair_ranks(first, second, np.array([1, 2, 3]), np.array([7, 7, 8])).tolist() == [1, 1, 1]
    # Under different ids the equal vectors are different texts, and a tie counts against both.
    assert retrieval.pair_ranks(first, second, np.array([1, 2, 3]), np.array([7, 9, 8])).tolist() == [2, 2, 1]


def test_equal_vectors_everywhere_find_nothing():
    same = np.ones((12, 4), np.float32)
    ranks = retrieval.pair_ranks(same, same, np.arange(12), np.arange(100, 112))
    assert ranks.tolist() == [12] * 12


def batch_of(pairs, labels, rows):
    first, second, first_ids, second_ids = (part[rows] for part in pairs)
    cosine = (retrieval.unit_rows(first) * retrieval.unit_rows(second)).sum(1).astype(np.float32)
    tokens = [[[101, text + 1, 102] + [0] * pad for text in ids] for pad, ids in ((0, first_ids), (2, second_ids))]
    batch = {"label_id": labels[rows], "input_ids": np.array(tokens[0]), "input_ids_b": np.array(tokens[1])}
    return batch, {"logits": cosine, "vector_a": first, "vector_b": second}


def evaluated(pairs, labels, order, size, **settings):
    evaluator = TwoTowerEvaluator(["no", "yes"], **settings)
    for start in range(0, len(order), size):
        evaluator.update(*batch_of(pairs, labels, order[start : start + size]))
    return evaluator


def test_two_tower_metrics_against_scikit_learn_and_brute_force():
    sklearn = pytest.importorskip("sklearn.metrics")
    pairs, labels = made_pairs(), RNG.integers(0, 2, 60)
    found = evaluated(pairs, labels, np.arange(60), 60, threshold=0.2).result()
    cosine = batch_of(pairs, labels, np.arange(60))[1]["logits"]
    predicted = cosine > 0.2
    assert found["accuracy"] == pytest.approx(sklearn.accuracy_score(labels, predicted))
    assert found["f1"] == pytest.approx(sklearn.f1_score(labels, predicted))
    assert found["macro_f1"] == pytest.approx(sklearn.f1_score(labels, predicted, average="macro"))
    assert found["auc"] == pytest.approx(sklearn.roc_auc_score(labels, cosine))
    ranks = np.array(ranks_by_hand(*(part[labels == 1] for part in pairs)))
    assert found["recall_at_5"] == pytest.approx((ranks <= 5).mean())
    assert found["mrr"] == pytest.approx((1 / ranks).mean())
    assert "loss" not in found


@pytest.mark.parametrize("size", [1, 7, 60])
def test_two_tower_metrics_do_not_depend_on_batches_or_order(size):
    pairs, labels = made_pairs(), np.arange(60) % 2
    whole = evaluated(pairs, labels, np.arange(60), 60).result()
    assert evaluated(pairs, labels, RNG.permutation(60), size).result() == whole


def test_text_ids_do_not_depend_on_padding_or_form():
    rows = [[101, 5, 102], [101, 6, 7, 102], [101, 5, 102]]
    ragged, every = Ragged.from_lists(rows), np.ones(3, bool)
    found = text_ids(ragged, every)
    assert found[0] == found[2] != found[1]
    np.testing.assert_array_equal(text_ids(ragged.padded(np.arange(3), 9), every), found)
    np.testing.assert_array_equal(text_ids(ragged, np.array([False, True, False])), found[1:2])


def test_two_tower_without_matches_or_rows():
    pairs = made_pairs()
    found = evaluated(pairs, np.zeros(60, int), np.arange(60), 60).result()
    assert np.isnan(found["mrr"]) and np.isnan(found["auc"]) and 0 <= found["accuracy"] <= 1
    assert all(np.isnan(value) for value in TwoTowerEvaluator(["no", "yes"]).result().values())
    with pytest.raises(ConfigError, match="recall_at_1"):
        TwoTowerEvaluator(["no", "yes"], main_metric="recall_at_2")
    assert TwoTowerEvaluator(["no", "yes"], main_metric="mrr").higher_is_better


def test_original_auc_was_fed_hard_predictions_it_is_that_of_the_scores():
    labels = np.array([0, 0, 1, 1])
    pairs = made_pairs(4)
    _, outputs = batch_of(pairs, labels, np.arange(4))
    outputs["logits"] = np.array([0.1, 0.3, 0.2, 0.4], np.float32)  # all below the threshold: one hard prediction
    evaluator = TwoTowerEvaluator(["no", "yes"])
    evaluator.update(batch_of(pairs, labels, np.arange(4))[0], outputs)
    assert evaluator.result()["auc"] == 0.75
    packed = MatchEvaluator(["no", "yes"])
    packed.update({"label_id": labels}, {"logits": np.stack([np.ones(4), outputs["logits"]], 1)})
    assert packed.result()["auc"] == 0.75 and packed.result()["accuracy"] == 0.5


def test_best_threshold_against_brute_force():
    for _ in range(50):
        score = RNG.integers(-5, 5, 12) / 5
        match = RNG.random(12) < 0.5
        threshold, accuracy = best_threshold(score.astype(np.float32), match)
        assert ((score > threshold) == match).mean() == accuracy
        tried = [((score > bar) == match).mean() for bar in np.linspace(-1.1, 1.1, 221)]
        assert accuracy == max(tried)


def test_score_histogram_counts_every_row_once():
    score, match = RNG.uniform(-1, 1, 500), RNG.random(500) < 0.3
    score[:2] = [-1.0000001, 1.0000001]
    drawn = score_histogram(score, match, ["no", "yes"], name="cosine", threshold=0.5, limits=(-1, 1))
    assert sum(drawn["counts"]["yes"]) == match.sum() and sum(drawn["counts"]["no"]) == (~match).sum()
    edges = np.array(drawn["edges"])
    inside = (score >= edges[10]) & (score < edges[11]) & match
    assert drawn["counts"]["yes"][10] == inside.sum()


def test_reports_are_plain_and_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    from easytransfer.run import pictures

    steps = ({"event": "step", "step": step, "loss": 1.0 / step} for step in (1, 2))
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    report = json.loads(json.dumps(evaluated(made_pairs(), np.arange(60) % 2, np.arange(60), 60).report()))
    drawn = pictures.draw_pictures(tmp_path, report, "accuracy")
    assert drawn == [pictures.LEARNING_CURVE, pictures.CONFUSION_MATRIX, pictures.SCORES]
    assert (tmp_path / pictures.SCORES).read_bytes()[:4] == b"\x89PNG"
    axes = pictures.score_picture(report["scores"]).axes[0]
    assert axes.get_xlabel() == "cosine"
    heights = [bar.get_height() for bar in axes.patches]
    assert sum(heights) == 60

    packed = MatchEvaluator(["no", "maybe", "yes"])
    packed.update({"label_id": np.array([0, 2])}, {"logits": np.eye(3)[:2]})
    assert "scores" not in packed.report()
