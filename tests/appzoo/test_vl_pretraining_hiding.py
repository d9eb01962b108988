"""What vision-language pre-training hides of regions and labels, against hand-worked cases and counts."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf

from appzoo.vl_pretraining.labels import NO_PIECE, SPARE, LabelHider, LabelRates
from appzoo.vl_pretraining.pairs import labels_of_other_images, of_other_images
from appzoo.vl_pretraining.regions import RegionHider
from easytransfer.app.inputs.region_labels import LabelMaker
from easytransfer.layers.draws import RowDraws
from easytransfer.text.wordpiece import WordPiece


def draws_of(rows: int, seed: int = 0) -> RowDraws:
    return RowDraws(tf.constant([seed, 1]), tf.constant(rows))


def arrays(batch: dict) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in batch.items()}


# Regions -----------------------------------------------------------------------------------------------------


def region_batch(rows: int, regions: int, real: int) -> dict[str, tf.Tensor]:
    """Features whose first number says which region it is; the last regions are padding."""
    features = np.zeros([rows, regions, 2], np.float32)
    features[..., 0] = np.arange(1, regions + 1)
    features[:, real:] = 0
    mask = np.broadcast_to(np.arange(regions) < real, [rows, regions]).astype(np.int32)
    return {"features": tf.constant(features), "region_mask": tf.constant(mask)}


def test_shares_of_hidden_zeroed_exchanged_and_kept_regions():
    """15 % of 100,000 regions, of these 80 % zeros, 10 % another region, 10 % kept; padding never."""
    rows, real = 12_500, 8
    found = arrays(RegionHider(10).hide(region_batch(rows, 10, real), draws_of(rows)))
    hidden = found["hidden_regions"] > 0
    assert not hidden[:, real:].any() and hidden[:, :real].mean() == pytest.approx(0.15, abs=0.005)
    shown, was = found["features"][..., 0], found["hidden_features"][..., 0]
    assert (was[:, :real] == np.arange(1, 9)).all() and (shown[~hidden] == was[~hidden]).all()
    count = hidden.sum()
    assert (shown[hidden] == 0).sum() / count == pytest.approx(0.8, abs=0.012)
    other = hidden & (shown != 0) & (shown != was)
    assert other.sum() / count == pytest.approx(0.1, abs=0.01)
    # Any other real region, equally often.
    step = (shown - was)[other].astype(int) % real
    np.testing.assert_allclose(np.bincount(step, minlength=8)[1:] / other.sum(), 1 / 7, atol=0.03)
    assert shown[other].max() <= real


def test_exactly_so_many_patches_become_zeros():
    found = arrays(RegionHider(64, exactly=5).hide(region_batch(2000, 64, 60), draws_of(2000)))
    hidden = found["hidden_regions"] > 0
    assert (hidden.sum(axis=1) == 5).all() and not hidden[:, 60:].any()
    assert (found["features"][hidden] == 0).all()
    assert (found["features"][~hidden] == found["hidden_features"][~hidden]).all()
    assert hidden[:, :60].mean(axis=0) == pytest.approx(np.full(60, 5 / 60), abs=0.03)
    few = arrays(RegionHider(8, exactly=5).hide(region_batch(10, 8, 3), draws_of(10)))
    assert (few["hidden_regions"].sum(axis=1) == 3).all()


def test_a_region_alone_has_no_other_to_take():
    found = arrays(RegionHider(4, share=1.0).hide(region_batch(3000, 4, 1), draws_of(3000)))
    shown = found["features"][:, 0, 0]
    assert set(shown) == {0.0, 1.0} and (shown == 1).mean() == pytest.approx(0.2, abs=0.03)


# Labels ------------------------------------------------------------------------------------------------------

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "old", "new", "car", "tr", "##ee", "dog"]
VOCABULARY += [f"x{i}" for i in range(5)] + [f"y{i}" for i in range(5)]
PAD, SEP, MASK, RED, BLUE, CAR, TR, EE, DOG, X, Y = 0, 3, 4, 5, 6, 9, 10, 11, 12, 13, 18
SLOTS, INNER, REGIONS = 6, 4, 5


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> WordPiece:
    folder = tmp_path_factory.mktemp("words")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}), encoding="utf-8")
    return WordPiece.from_folder(folder)


def hider(tokenizer, pieces: int = 12, **rates: float) -> LabelHider:
    maker = LabelMaker(tokenizer, [], [], slots=SLOTS, pieces=pieces, inner=INNER)
    return LabelHider(maker, LabelRates(**rates), 0.3)


def label_rows(labels: list[tuple[list[int], list[int]]], slots: int) -> list[np.ndarray]:
    """Pieces and kinds of words of labels, each an attribute and an object."""
    pieces, words = (np.full([slots, INNER], NO_PIECE, np.int32) for _ in range(2))
    for slot, (attribute, thing) in enumerate(labels):
        ids = [*attribute, *thing]
        pieces[slot, : len(ids)], words[slot, : len(ids)] = ids, [0] * len(attribute) + [1] * len(thing)
    return [pieces, words]


def label_batch(rows: int) -> dict[str, tf.Tensor]:
    """Labels red tree (region 3), dog (0), red tree again (2) and blue car (1); region 4 is padding.

    Of other images come x0 y0, x1 y1, ... and the dog, which the row has itself.
    """
    labels = [([RED], [TR, EE]), ([], [DOG]), ([RED], [TR, EE]), ([BLUE], [CAR])]
    spare = [([X + i], [Y + i]) for i in range(5)] + [([], [DOG])]
    pieces, words = label_rows(labels, SLOTS)
    alike = {
        "stored_labels": pieces,
        "stored_label_words": words,
        "stored_label_regions": np.int32([3, 0, 2, 1, -1, -1]),
        **dict(zip(SPARE, label_rows(spare, SLOTS), strict=True)),
        "region_mask": np.int32([1, 1, 1, 1, 0]),
        "object_id": np.int32([2, 0, 1, 1, 1]),
        "object_conf": np.float32([0.9, 0.5, 0.5, 0.4, 0.9]),
        # The attribute of the dog is not sure enough.
        "attribute_id": np.int32([3, 1, 0, 0, 0]),
        "attribute_conf": np.float32([0.2, 0.5, 0.9, 0.9, 0.9]),
    }
    return {
        name: tf.constant(np.ascontiguousarray(np.broadcast_to(value, [rows, *value.shape])))
        for name, value in alike.items()
    }


def test_labels_are_laid_out_in_random_order(tokenizer):
    """Nothing hidden or replaced: pieces in the order of the slots, with their place in the label, [SEP] behind."""
    found = arrays(hider(tokenizer, used=1, hidden=0, replaced=0).hide(label_batch(3000), draws_of(3000)))
    texts = {3: [RED, TR, EE], 0: [DOG], 2: [RED, TR, EE], 1: [BLUE, CAR]}
    pointed = {3: [2, 3], 0: [0], 2: [2, 3], 1: [1]}
    for row in range(300):
        sources = found["label_region"][row].tolist()
        assert sorted(sources[:4]) == [0, 1, 2, 3] and sources[4:] == [-1, -1]
        ids = [piece for source in sources[:4] for piece in texts[source]]
        assert found["label_ids"][row].tolist() == [*ids, SEP, PAD, PAD]
        assert found["label_slot"][row].tolist() == [s for s in range(4) for _ in texts[sources[s]]] + [-1] * 3
        inner = [place for source in sources[:4] for place in range(len(texts[source]))]
        assert found["label_inner"][row].tolist() == [*inner, 0, 0, 0]
        assert found["label_mask"][row].tolist() == [1] * 10 + [0] * 2
        for slot, source in enumerate(sources[:4]):
            assert np.flatnonzero(found["label_regions"][row, slot]).tolist() == pointed[source]
    assert (found["label_ids"] == found["label_targets"]).all() and not found["label_hidden"].any()
    first = np.bincount(found["label_region"][:, 0], minlength=4)
    np.testing.assert_allclose(first / 3000, 0.25, atol=0.03)


def test_shares_of_used_hidden_and_replaced_labels(tokenizer):
    """100,000 labels: 70 % of images with labels, 30 % of words hidden one by one, 25 % replaced by none of the row."""
    rows = 25_000
    # Room for four labels that become longer.
    found = arrays(hider(tokenizer, pieces=20).hide(label_batch(rows), draws_of(rows)))
    used = found["label_mask"].any(axis=1)
    assert used.mean() == pytest.approx(0.7, abs=0.01)
    assert not found["label_real"][~used].any() and (found["label_slot"][~used] == -1).all()
    assert (found["label_ids"][~used] == PAD).all() and not found["label_hidden"][~used].any()
    real, original = found["label_real"] > 0, found["label_original"] > 0
    assert (real.sum(axis=1)[used] == 4).all()
    # The dog, without attribute in 1 of 36 times, is a label of the row itself and no wrong one.
    assert 1 - original[real].mean() == pytest.approx(0.25 * 35 / 36, abs=0.006)
    # Replaced labels point nowhere and are not guessed, but are hidden as often as others.
    assert not found["label_regions"][~original].any() and found["label_regions"][original].any(axis=1).all()
    of_label = found["label_slot"] >= 0
    of_original = np.take_along_axis(original, np.where(of_label, found["label_slot"], 0), axis=1) & of_label
    of_replaced = ~of_original & of_label
    masked = found["label_ids"] == MASK
    assert (found["label_hidden"].astype(bool) == masked & of_original).all()
    for kind in (of_original, of_replaced):
        assert masked[kind].mean() == pytest.approx(0.3, abs=0.01)
    # All pieces of a word together, attribute and object one by one.
    row, place = np.nonzero((found["label_targets"] == TR) & of_original)
    assert (masked[row, place] == masked[row, place + 1]).all()
    attribute, thing = masked[row, place - 1], masked[row, place]
    for a, b in ((False, False), (False, True), (True, False), (True, True)):
        share = ((attribute == a) & (thing == b)).mean()
        assert share == pytest.approx((0.3 if a else 0.7) * (0.3 if b else 0.7), abs=0.012)
    # Replaced labels are put together from an attribute and an object of different others.
    row, place = np.nonzero((found["label_targets"] >= X) & (found["label_targets"] < Y) & of_replaced)
    objects = found["label_targets"][row, place + 1]
    assert set(objects) == {*range(Y, Y + 5), DOG}
    counts = np.array([(objects[found["label_targets"][row, place] == X + i] == Y + 4).mean() for i in range(5)])
    np.testing.assert_allclose(counts, 1 / 6, atol=0.03)
    assert not ((found["label_targets"] == DOG) & of_replaced & (found["label_inner"] == 0)).any()


def test_a_label_is_not_replaced_where_it_would_push_others_out(tokenizer):
    """Nine pieces and [SEP] fill all places: the label of one piece is replaced only where the new one has no more."""
    found = arrays(hider(tokenizer, pieces=10, used=1, hidden=0, replaced=1).hide(label_batch(2000), draws_of(2000)))
    assert (found["label_real"].sum(axis=1) == 4).all() and (found["label_targets"] == SEP).any(axis=1).all()
    of_dog = found["label_region"] == 0
    # Without an attribute, 1 of 6 times, by an object that is not the row's own, 5 of 6 times.
    assert 1 - found["label_original"][of_dog].mean() == pytest.approx(5 / 36, abs=0.025)
    assert found["label_original"][found["label_region"] == 1].mean() == pytest.approx(1 / 36, abs=0.02)


def test_shapes_are_known_for_any_number_of_rows(tokenizer):
    """Signatures of an export must know the rank of what they return."""
    specs = {name: tf.TensorSpec([None, *value.shape[1:]], value.dtype) for name, value in label_batch(1).items()}

    @tf.function(input_signature=[specs], autograph=False)
    def hide(batch):
        return hider(tokenizer).hide(batch, RowDraws(tf.constant([0, 1]), tf.shape(batch["object_id"])[0]))

    found = hide.get_concrete_function().structured_outputs
    unknown = [name for name, value in found.items() if None in (value.shape.rank, *value.shape[1:])]
    assert unknown == []


def test_without_other_images_no_label_is_replaced(tokenizer):
    batch = {name: value for name, value in label_batch(100).items() if name not in SPARE}
    found = arrays(hider(tokenizer, used=1, replaced=1).hide(batch, draws_of(100)))
    assert (found["label_original"] == found["label_real"]).all()


# Pairs -------------------------------------------------------------------------------------------------------


def test_texts_of_other_images():
    """Three images with two texts each, one text of which two images have; groups where they have others."""
    images, texts = [1, 1, 2, 2, 3, 3], ["a", "b", "c", "a", "d", "e"]
    numbers = np.arange(6) + 100
    found = of_other_images(numbers, images, texts, 7, count=300)
    wanted = [{2, 4, 5}, {2, 3, 4, 5}, {0, 1, 4, 5}, {1, 4, 5}, {0, 1, 2, 3}, {0, 1, 2, 3}]
    assert [set(row) for row in found] == wanted
    for row, places in enumerate(wanted):
        shares = np.bincount(found[row], minlength=6)[sorted(places)] / 300
        np.testing.assert_allclose(shares, 1 / len(places), atol=0.11)
    # By seed and number of the row alone, whatever its place.
    again = of_other_images(numbers[::-1], images[::-1], texts[::-1], 7, count=300)
    assert (found != of_other_images(numbers, images, texts, 8, count=300)).any()
    assert [set(5 - row) for row in again[::-1]] == wanted
    grouped = of_other_images(numbers, images, texts, 7, count=50, groups=["x", "x", "x", "y", "z", "z"])
    assert [set(row) for row in grouped[:3]] == [{2}, {2}, {0, 1}]
    assert [set(row) for row in grouped[3:]] == wanted[3:]
    assert (of_other_images(numbers[:2], images[:2], texts[:2], 7, count=3) == -1).all()


def test_labels_of_other_images():
    there = np.array([[True, True], [True, False], [False, False], [True, True]])
    numbers, images = np.arange(4), ["a", "a", "b", "c"]
    row, place = labels_of_other_images(numbers, images, there, 3, count=400)
    wanted = [{(3, 0), (3, 1)}, {(3, 0), (3, 1)}, {(0, 0), (0, 1), (1, 0), (3, 0), (3, 1)}, {(0, 0), (0, 1), (1, 0)}]
    assert [set(zip(a, b, strict=True)) for a, b in zip(row.tolist(), place.tolist(), strict=True)] == wanted
    alone = labels_of_other_images(numbers[:2], images[:2], there[:2], 3, count=2)
    assert (np.array(alone) == -1).all()
    nothing = labels_of_other_images(numbers, images, np.zeros_like(there), 3, count=2)
    assert (np.array(nothing) == -1).all()
