"""CMC, mAP and re-ranking against loops over the formulas, to 1e-9; junk, distractors and ties by hand."""

import numpy as np
import pytest

from appzoo.person_reid.config import RetrievalSettings
from appzoo.person_reid.ranking import Persons, cosine_distance, kept, ranking_scores, retrieval_metrics, single_shot
from appzoo.person_reid.reranking import Reranking
from appzoo.person_reid.target import GALLERY, QUERY, RetrievalEvaluator
from easytransfer.errors import ConfigError


def persons(random: np.random.Generator, count: int, identities: int = 6) -> Persons:
    vectors = random.normal(size=(count, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    numbers = (random.integers(-1, identities, count), random.integers(-1, 3, count), random.integers(-1, 2, count))
    return Persons(vectors, *numbers)


def by_loops(queries: Persons, gallery: Persons, protocol: str, distractor) -> dict[str, float]:
    precisions, ranks = [], []
    for q in range(len(queries)):
        listed = []
        for g in range(len(gallery)):
            if gallery.pid[g] == -1:
                continue
            match = queries.pid[q] == gallery.pid[g] and queries.pid[q] not in (-1, distractor)
            if match:
                if queries.camera[q] == gallery.camera[g] != -1:
                    continue
                worn = (queries.clothes[q], gallery.clothes[g])
                if protocol and -1 in worn:
                    continue
                if protocol == "cc" and worn[0] == worn[1] or protocol == "sc" and worn[0] != worn[1]:
                    continue
            cosine = sum(float(a) * float(b) for a, b in zip(queries.vectors[q], gallery.vectors[g], strict=True))
            listed.append((round(1 - cosine, 12), g, match))
        hits = [match for _, _, match in sorted(listed)]
        if not any(hits):
            continue
        found, total = 0, 0.0
        for place, hit in enumerate(hits, 1):
            if hit:
                found += 1
                total += found / place
        precisions.append(total / found)
        ranks.append(hits.index(True) + 1)
    front = f"{protocol}_" if protocol else ""
    cmc = {f"{front}rank_{k}": np.mean([rank <= k for rank in ranks]) for k in (1, 5, 10)}
    return {f"{front}map": np.mean(precisions), **cmc}


@pytest.mark.parametrize("distractor", [0, None])
def test_metrics_are_those_of_loops(distractor):
    random = np.random.default_rng(0)
    queries, gallery = persons(random, 40), persons(random, 90)
    # Images at the same place are told apart by their order alone.
    gallery.vectors[50:60] = gallery.vectors[10:20]
    found = retrieval_metrics(queries, gallery, distractor=distractor)
    for protocol in ("", "cc", "sc"):
        for name, value in by_loops(queries, gallery, protocol, distractor).items():
            assert found.pop(name) == pytest.approx(value, abs=1e-9), name
    assert found == {}


def test_average_precision_by_hand():
    relevant = np.array([[True, False, True, False], [False, False, False, True]])
    distances, ranked = np.array([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]]), np.ones((2, 4), bool)
    precision, first = ranking_scores(distances, ranked, relevant)
    np.testing.assert_allclose(precision, [(1 + 2 / 3) / 2, 1], atol=1e-12)
    assert first.tolist() == [1, 1]
    # Of equal distances the first of the gallery comes first.
    assert ranking_scores(np.zeros((2, 4)), ranked, relevant)[1].tolist() == [1, 4]


def test_junk_is_dropped_and_a_distractor_stays():
    one = np.eye(4, dtype=np.float32)
    queries = Persons(one[[0, 0, 0]], np.array([5, -1, 0]), np.array([1, 1, 1]), np.full(3, -1))
    gallery = Persons(one[[0, 0, 1, 0]], np.array([-1, 0, 5, 5]), np.array([2, 2, 2, 1]), np.full(4, -1))
    ranked, relevant = kept(queries, gallery, "", 0)
    assert ranked[0].tolist() == [False, True, True, False] and relevant[0].tolist() == [False, False, True, False]
    assert not relevant[1:].any()
    metrics = retrieval_metrics(queries, gallery, protocols=("",), distractor=0)
    assert metrics["map"] == 0.5 and metrics["rank_1"] == 0
    assert retrieval_metrics(queries, gallery, protocols=("",))["map"] == pytest.approx((0.5 + 1) / 2)


def test_a_single_shot_gallery_has_one_image_of_each_identity_and_all_distractors():
    random = np.random.default_rng(4)
    gallery = persons(random, 60)
    trials = list(single_shot(gallery, 3, distractor=0))
    for each in trials:
        assert (each.pid == 0).sum() == (gallery.pid == 0).sum() and -1 not in each.pid
        assert sorted(each.pid[each.pid > 0]) == [1, 2, 3, 4, 5]
    assert any(not np.array_equal(trials[0].vectors, each.vectors) for each in trials[1:])
    queries = persons(random, 20)
    expected = np.mean([retrieval_metrics(queries, each, distractor=0)["map"] for each in trials])
    assert retrieval_metrics(queries, gallery, distractor=0, trials=3)["map"] == pytest.approx(expected, abs=1e-12)


def reranked_by_loops(vectors: np.ndarray, queries: int, k1: int, k2: int, share: float) -> np.ndarray:
    """Zhong et al., section 3, one image at a time."""
    count = len(vectors)
    d = np.array([[round(1 - float(a @ b), 12) for b in vectors] for a in vectors.astype(np.float64)])
    d = (d / d.max(axis=1, keepdims=True)).astype(np.float32)
    order = [sorted(range(count), key=lambda j, i=i: (d[i, j], j)) for i in range(count)]

    def reciprocal(i, k):
        return {j for j in order[i][: k + 1] if i in order[j][: k + 1]}

    encoded = np.zeros((count, count))
    for i in range(count):
        own, expanded = reciprocal(i, k1), reciprocal(i, k1)
        for j in own:
            others = reciprocal(j, round(k1 / 2))
            if len(others & own) > 2 / 3 * len(others):
                expanded |= others
        weights = {j: np.exp(-float(d[i, j])) for j in expanded}
        for j, weight in weights.items():
            encoded[i, j] = weight / sum(weights.values())
    averaged = np.array([np.mean([encoded[j] for j in order[i][:k2]], axis=0) for i in range(count)])
    found = np.zeros((queries, count - queries))
    for q in range(queries):
        for g in range(queries, count):
            low, high = (f(averaged[q], averaged[g]).sum() for f in (np.minimum, np.maximum))
            found[q, g - queries] = (1 - share) * (1 - low / high) + share * d[q, g]
    return found


@pytest.mark.parametrize(("k1", "k2"), [(6, 3), (3, 1), (40, 4)])
def test_re_ranking_is_that_of_loops(k1, k2):
    vectors = persons(np.random.default_rng(5), 30).vectors
    found = Reranking(k1, k2, 0.3)(vectors[:8], vectors[8:])
    np.testing.assert_allclose(found, reranked_by_loops(vectors, 8, k1, k2, 0.3), atol=2e-6)


def test_without_its_own_share_re_ranking_is_the_first_distance():
    vectors = persons(np.random.default_rng(5), 20).vectors
    found = Reranking(4, 2, 1.0)(vectors[:5], vectors[5:])
    np.testing.assert_allclose(found.argsort(1), cosine_distance(vectors[:5], vectors[5:]).argsort(1))
    with pytest.raises(ConfigError, match="compares all 20 images"):
        Reranking(4, 2, most_pairs=399)(vectors[:5], vectors[5:])


def batches_of(people: Persons, role: int, start: int) -> tuple[dict, dict]:
    labels = {name: getattr(people, name) for name in ("pid", "camera", "clothes")}
    rows = len(people)
    batch = {**labels, "role": np.full(rows, role), "order": np.arange(start, start + rows)}
    return batch, {"embedding": people.vectors}


def test_the_evaluator_depends_on_the_order_of_the_table_alone():
    random = np.random.default_rng(6)
    gallery, queries = persons(random, 30), persons(random, 12)
    gallery.vectors[20:] = gallery.vectors[:10]
    whole, parts = (
        RetrievalEvaluator(RetrievalSettings(), 0),
        [RetrievalEvaluator(RetrievalSettings(), 0) for _ in "ab"],
    )
    for people, role, start in ((gallery, GALLERY, 0), (queries, QUERY, 30)):
        batch, outputs = batches_of(people, role, start)
        whole.update(batch, outputs)
        for number, part in enumerate(parts):
            rows = np.arange(len(people))[::-1][number::2]
            part.update({n: v[rows] for n, v in batch.items()}, {"embedding": people.vectors[rows]})
    parts[1].merge(parts[0].state())
    result = whole.result()
    assert parts[1].result() == result and whole.main_metric == "cc_map"
    real = queries.take(queries.pid >= 0)
    expected = retrieval_metrics(real, gallery.take(gallery.pid >= 0), distractor=0)
    counts = {"queries": float(len(real)), "gallery": float((gallery.pid >= 0).sum())}
    assert result == pytest.approx({**expected, **counts}, abs=1e-12)


def test_without_outfits_there_is_one_protocol():
    people = persons(np.random.default_rng(7), 20)
    people.clothes[:] = -1
    evaluator = RetrievalEvaluator(RetrievalSettings(rerank=True, rerank_k1=5, rerank_k2=2))
    for role in (QUERY, GALLERY):
        evaluator.update(*batches_of(people, role, 0))
    assert evaluator.main_metric == "map"
    assert evaluator.result().keys() == {"map", "rank_1", "rank_5", "rank_10", "queries", "gallery"}
