"""Token losses and entity scores against an independent reading of conlleval's rules, and seqeval where installed."""

import pickle
import random
from itertools import pairwise

import numpy as np
import pytest
import tensorflow as tf

from appzoo.labeling.entities import (
    EntityEvaluator,
    TagSet,
    entities,
    parse_tag,
    read_tags,
    to_bio,
    unusual_tags,
)
from easytransfer.losses.sequence import labelled_tokens, sequence_labeling_loss, token_cross_entropy_sum
from easytransfer.run.pictures import confusion_picture

SCHEMES = {"bio": "BI", "bioes": "BIES"}
TYPES = ("PER", "LOC", "ORG-X")


def tags_of(scheme):
    return ["O", *(f"{role}-{kind}" for role in SCHEMES[scheme] for kind in TYPES)]


def oracle(tags):
    """Entities by a walk with an open entity, closed and opened by conlleval's conditions one after the other."""
    found, opened = [], None
    before, kind_before = "O", ""
    for i, tag in enumerate([*tags, "O"]):
        role, kind = (tag[0], tag[2:])
        closes = before != "O" and (before in "ES" or role in "BSO" or kind != kind_before)
        if opened is not None and closes:
            found.append((kind_before, opened, i))
            opened = None
        if role != "O" and (role in "BS" or before in "OES" or kind != kind_before):
            opened = i
        before, kind_before = role, kind
    return found


def random_table(seed, scheme, rows):
    """True and predicted tags of `rows` rows: uniformly random, so nearly every one is broken, or slightly changed."""
    rng = random.Random(seed)
    names, table = tags_of(scheme), []
    for _ in range(rows):
        true = rng.choices(names, k=rng.randint(1, 15))
        kept = rng.choice([0.0, 0.5, 0.9, 1.0])
        table.append((true, [tag if rng.random() < kept else rng.choice(names) for tag in true]))
    return table


def evaluate(labels, table):
    """Gives the rows to the evaluator as one padded batch."""
    ids = {name: i for i, name in enumerate(labels)}
    width = max(len(true) for true, _ in table)
    batch = {"label_id": np.full((len(table), width + 1), -1), "word_starts": np.zeros((len(table), width), int)}
    tags = np.zeros((len(table), width), int)
    for row, (true, predicted) in enumerate(table):
        batch["label_id"][row, 1 : len(true) + 1] = [ids[name] for name in true]
        batch["word_starts"][row, : len(true)] = np.arange(len(true)) + 1
        tags[row, : len(true)] = [ids[name] for name in predicted]
    logs = np.log(np.where(np.eye(len(labels))[tags] > 0, 0.5, 0.5 / (len(labels) - 1)))
    evaluator = EntityEvaluator(labels)
    evaluator.update(batch, {"tags": tags, "log_probabilities": logs})
    return evaluator


@pytest.mark.parametrize("scheme", SCHEMES)
def test_1000_random_tag_sequences_have_the_entities_of_conlleval(scheme):
    for true, predicted in random_table(1, scheme, 500):
        assert entities(true) == oracle(true)
        assert entities(predicted) == oracle(predicted)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_scores_are_those_of_sets_of_entities(scheme):
    table = random_table(2, scheme, 1000)
    result = evaluate(tags_of(scheme), table).result()
    true = {(row, *entity) for row, (tags, _) in enumerate(table) for entity in oracle(tags)}
    found = {(row, *entity) for row, (_, tags) in enumerate(table) for entity in oracle(tags)}
    precision, recall = len(true & found) / len(found), len(true & found) / len(true)
    assert (result["precision"], result["recall"]) == (precision, recall)
    assert result["f1"] == pytest.approx(2 * precision * recall / (precision + recall), rel=1e-12)
    pairs = [pair for tags, others in table for pair in zip(tags, others, strict=True)]
    assert result["accuracy"] == pytest.approx(np.mean([a == b for a, b in pairs]))
    names = len(tags_of(scheme))
    losses = [-np.log(0.5 if a == b else 0.5 / (names - 1)) for a, b in pairs]
    assert result["loss"] == pytest.approx(np.mean(losses))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_scores_equal_seqeval_on_1000_random_tag_sequences(scheme):
    seqeval = pytest.importorskip("seqeval.metrics", reason="seqeval is published as source only and not in the lock")
    table = random_table(3, scheme, 1000)
    true, predicted = [list(side) for side in zip(*table, strict=True)]
    evaluator = evaluate(tags_of(scheme), table)
    for name, function in (("precision", "precision_score"), ("recall", "recall_score"), ("f1", "f1_score")):
        assert evaluator.result()[name] == pytest.approx(getattr(seqeval, function)(true, predicted), rel=1e-14), name
    report = seqeval.classification_report(true, predicted, output_dict=True)
    for row in evaluator.per_class():
        theirs = report[row["label"]]
        found = [row["precision"], row["recall"], row["f1"], row["support"]]
        assert found == pytest.approx(
            [theirs[key] for key in ("precision", "recall", "f1-score", "support")], rel=1e-14
        )


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O I-PER I-PER B-PER O", [("PER", 1, 3), ("PER", 3, 4)]),  # IOB1
        ("I-PER I-LOC", [("PER", 0, 1), ("LOC", 1, 2)]),
        ("B-PER E-PER E-PER S-PER", [("PER", 0, 2), ("PER", 2, 3), ("PER", 3, 4)]),
        ("B-PER M-PER L-PER U-LOC", [("PER", 0, 3), ("LOC", 3, 4)]),
        ("B I O B", [("_", 0, 2), ("_", 3, 4)]),
        ("NOUN NOUN IN", [("NOUN", 0, 1), ("NOUN", 1, 2), ("IN", 2, 3)]),
        ("", []),
    ],
)
def test_entities_by_hand(tags, expected):
    assert entities(tags.split()) == expected


def test_roles_and_types():
    assert [parse_tag(tag) for tag in ("O", "B-a-b", "I", "Other")] == [
        *(("O", ""), ("B", "a-b"), ("I", "_"), ("S", "Other"))
    ]


def test_conversion_keeps_the_entities():
    assert to_bio("I-PER I-PER B-PER O I-LOC I-PER".split()) == "B-PER I-PER B-PER O B-LOC B-PER".split()
    for true, _ in random_table(4, "bioes", 200):
        assert entities(to_bio(true)) == entities(true)


def test_no_entity_reaches_over_the_end_of_a_row():
    tag_set = TagSet(["O", "I-PER"])
    assert tag_set.spans(np.ones(4, int), [2, 0, 2]).tolist() == [[0, 2, 0], [2, 4, 0]]


def test_nothing_to_find_scores_zero_and_no_words_score_nothing():
    result = evaluate(["O", "B-PER"], [(["O"], ["O"])]).result()
    assert (result["accuracy"], result["precision"], result["recall"], result["f1"]) == (1, 0, 0, 0)
    assert np.isnan(list(EntityEvaluator(["O"]).result().values())).all()


def test_report_has_a_row_per_type():
    table = [("B-PER I-PER O B-LOC".split(), "B-PER O O B-LOC".split()), (["B-LOC"], ["O"])]
    report = evaluate(["O", "B-PER", "I-PER", "B-LOC"], table).report()
    assert (report["rows"], report["words"], report["windows"]) == (2, 5, 2)
    assert report["confusion"] == [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 1]]
    figure = confusion_picture(np.array(report["confusion"]), report["labels"], report["confusion_of"])
    assert figure.axes[0].get_title() == "Confusion matrix, 5 words, 60.00% right"
    loc, per = report["per_class"]
    assert loc == {
        "label": "LOC",
        "precision": 1,
        "recall": 0.5,
        "f1": pytest.approx(2 / 3),
        "support": 2,
        "predicted": 1,
    }
    assert (per["label"], per["f1"], per["support"], per["predicted"]) == ("PER", 0, 1, 1)


def in_windows(table, labels, seed):
    """The rows of `evaluate` cut into windows of random numbers of words, in random order, as (batch, outputs)."""
    rng, ids, width = random.Random(seed), {name: i for i, name in enumerate(labels)}, 15
    windows = []
    for row, (true, predicted) in enumerate(table):
        cuts = sorted(rng.sample(range(1, len(true)), rng.randint(0, min(2, len(true) - 1)))) if len(true) > 1 else []
        pieces = list(pairwise([0, *cuts, len(true)]))
        for number, (begin, end) in enumerate(pieces):
            place = [row, number, len(pieces)]
            windows.append((place, *([ids[name] for name in side[begin:end]] for side in (true, predicted))))
    rng.shuffle(windows)
    for start in range(0, len(windows), 7):
        part = windows[start : start + 7]
        batch = {"label_id": np.full((len(part), width + 1), -1), "word_starts": np.zeros((len(part), width), int)}
        tags, batch["place"] = np.zeros((len(part), width), int), [place for place, _, _ in part]
        for i, (_, true, predicted) in enumerate(part):
            batch["label_id"][i, 1 : len(true) + 1] = true
            batch["word_starts"][i, : len(true)] = np.arange(len(true)) + 1
            tags[i, : len(true)] = predicted
        logs = np.log(np.where(np.eye(len(labels))[tags] > 0, 0.5, 0.5 / (len(labels) - 1)))
        yield batch, {"tags": tags, "log_probabilities": logs}


def test_windows_in_any_order_on_any_worker_score_as_their_rows():
    labels, table = tags_of("bio"), random_table(5, "bio", 300)
    whole = evaluate(labels, table)
    workers = [EntityEvaluator(labels) for _ in range(3)]
    for number, (batch, outputs) in enumerate(in_windows(table, labels, 5)):
        workers[number % 3].update(batch, outputs)
    assert any(worker.result() != whole.result() for worker in workers)
    merged = EntityEvaluator(labels)
    for worker in workers:
        merged.merge(pickle.loads(pickle.dumps(worker.state())))
    assert merged.result() == whole.result()
    expected, found = whole.report(), merged.report()
    assert found["windows"] > expected["windows"] == 300 == found["rows"]
    assert {**found, "windows": 300} == expected


def test_what_is_kept_does_not_grow_with_the_rows():
    labels, sizes = tags_of("bio"), []
    table = random_table(6, "bio", 100)
    for times in (1, 20):
        evaluator = EntityEvaluator(labels)
        for _ in range(times):
            for batch, outputs in in_windows(table, labels, 6):
                evaluator.update(batch, outputs)
        assert evaluator.report()["rows"] == 100 * times
        sizes.append(len(pickle.dumps(evaluator.state())))
    assert sizes[1] < 1.1 * sizes[0]


# Losses ------------------------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(3, 4, 5)).astype(np.float32) * 2
LABELS = np.array([[-1, 2, 0, -1], [-1, 4, -1, -1], [-1, 1, 1, 3]])
WEIGHT = np.array([1, 0.5, 1], np.float32)


def token_losses(smoothing=0.0):
    """(example, loss) of every labelled token, from the definition in float64."""
    logs = LOGITS.astype(np.float64) - np.log(np.exp(LOGITS.astype(np.float64)).sum(-1, keepdims=True))
    places = zip(*np.nonzero(LABELS >= 0), strict=True)
    return [(i, -(1 - smoothing) * logs[i, t, LABELS[i, t]] - smoothing * logs[i, t].mean()) for i, t in places]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_token_cross_entropy_sum(smoothing):
    found = token_cross_entropy_sum(LABELS, LOGITS, WEIGHT, smoothing)
    expected = sum(WEIGHT[i] * loss for i, loss in token_losses(smoothing))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert float(labelled_tokens(LABELS, WEIGHT)) == 2 + 0.5 + 3


def test_original_sequence_labeling_loss_divided_by_padding_too():
    found = sequence_labeling_loss(LOGITS, LABELS, 5)
    np.testing.assert_allclose(found, np.mean([loss for _, loss in token_losses()]), rtol=1e-6)
    padded = np.pad(LOGITS, [(0, 0), (0, 7), (0, 0)]), np.pad(LABELS, [(0, 0), (0, 7)], constant_values=-1)
    np.testing.assert_allclose(sequence_labeling_loss(*padded, 5), found, rtol=1e-6)
    with pytest.raises(ValueError, match="5 tags, 4 were declared"):
        sequence_labeling_loss(LOGITS, LABELS, 4)


def test_a_batch_without_labels_has_loss_and_gradient_zero():
    logits = tf.constant(LOGITS)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = sequence_labeling_loss(logits, np.full((3, 4), -1), 5)
    assert float(loss) == 0 and not np.any(tape.gradient(loss, logits))


# Tags written otherwise --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outside", "form"),
    [
        *((outside, "{0}-{1}") for outside in ("O", "0", "o", "\u041e", "OTHER", "OUT", "Outside")),
        *((outside, form) for outside in ("O", "0", "o", "other") for form in ("{0}_{1}", "{1}-{0}", "{1}_{0}")),
    ],
)
@pytest.mark.parametrize("roles", ["BI", "bi", "BE", "bm"])
def test_the_outside_tag_is_never_an_entity_however_it_is_written(outside, form, roles):
    begin, inside = (form.format(role, "PER") for role in roles)
    labels = [outside, begin, inside]
    table = [([outside, begin, inside, outside], [outside, begin, inside, begin]), ([outside] * 3, [outside] * 3)]
    evaluator = evaluate(labels, table)
    result = evaluator.result()
    assert (result["precision"], result["recall"]) == (0.5, 1.0)
    assert evaluator.per_class() == [
        {"label": "PER", "precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1, "predicted": 2}
    ]


def test_unusual_tags_are_named_with_how_they_are_read():
    assert unusual_tags(["O", "B-PER", "I-PER", "S", "E-LOC"]) == {}
    assert unusual_tags(["0", "o", "B-PER"]) == dict.fromkeys("0o", "O, outside of entities")
    assert unusual_tags(["O", "B_PER", "I_PER"]) == {"B_PER": "B-PER", "I_PER": "I-PER"}
    assert unusual_tags(["O", "B-PER", "b-PER"]) == {"b-PER": "B-PER"}
    assert unusual_tags(["O", "B-PER", "B_LOC"]) == {"B_LOC": "an entity of one word, of the type B_LOC"}
    assert unusual_tags(["0", "1", "2"]) == {"0": "O, outside of entities"}


def test_parts_of_speech_are_no_scheme_of_entities():
    for names in (["n", "v", "o", "m"], ["NN", "VB", "O"], ["NOUN", "X"], ["PER", "O", "LOC"], ["B", "M", "E", "S"]):
        assert unusual_tags(names) == {}
    assert TagSet(["n", "o"]).types == ["n", "o"]
    for names in ("n v o m b i u", "NN PRP-S WP-S O", "NN IN OUT OTHER", "N_S V_S X", "NN-TL NN-B O", "b", "b o"):
        assert unusual_tags(names.split()) == {}
        assert TagSet(names.split()).types == sorted({"_" if name == "B" else name for name in names.split()} - {"O"})


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("b-per i-per o b-loc", [("per", 0, 2), ("loc", 3, 4)]),
        ("b-PER i-PER O l-LOC", [("PER", 0, 2), ("LOC", 3, 4)]),
        ("B-PER i-PER OUT s-LOC", [("PER", 0, 2), ("LOC", 3, 4)]),
        ("PER-B PER-I O LOC-B", [("PER", 0, 2), ("LOC", 3, 4)]),
        ("per_b per_e per_s o loc_u", [("per", 0, 2), ("per", 2, 3), ("loc", 4, 5)]),
        ("L-B L-I O P-B", [("L", 0, 2), ("P", 3, 4)]),
        ("B-L I-L O B-P", [("L", 0, 2), ("P", 3, 4)]),
        ("B_PER I_PER O B_LOC", [("PER", 0, 2), ("LOC", 3, 4)]),
        ("B_PER B_PER O B_LOC", [("PER", 0, 1), ("PER", 1, 2), ("LOC", 3, 4)]),
        ("b i o b", [("_", 0, 2), ("_", 3, 4)]),
        ("b m e s", [("_", 0, 3), ("_", 3, 4)]),
        ("B-PER OTHER out OUTSIDE B-OTHER", [("PER", 0, 1), ("OTHER", 4, 5)]),
    ],
)
def test_prefixes_are_read_in_either_case_and_behind_the_type_and_told(tags, expected):
    names = tags.split()
    assert entities(names) == expected
    usual = [name for name in names if parse_tag(name) == read_tags(names)[name]]
    assert set(unusual_tags(names)) == set(names) - set(usual)


def test_how_prefixes_of_other_schemes_are_told():
    assert unusual_tags("b-per m-per o".split()) == {"b-per": "B-per", "m-per": "I-per", "o": "O, outside of entities"}
    assert unusual_tags("PER_B PER_I LOC_B O".split()) == {"PER_B": "B-PER", "PER_I": "I-PER", "LOC_B": "B-LOC"}
    assert unusual_tags("b i O".split()) == {"b": "B", "i": "I"}
