"""Labels of regions against hand-worked cases, and the order in which they are used."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf

from easytransfer.app.inputs.region_labels import (
    ATTRIBUTE,
    OBJECT,
    STORED,
    LabelMaker,
    area,
    intersection_over_union,
    read_names,
)
from easytransfer.app.inputs.regions import NpzRegions
from easytransfer.data.regions import ImageRegions
from easytransfer.errors import DataError
from easytransfer.layers.draws import RowDraws
from easytransfer.text.wordpiece import WordPiece

WORDS = ["red", "blue", "car", "tr", "##ee", "fire", "hyd", "##rant", "old"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
RED, BLUE, CAR, TR, EE, FIRE, HYD, RANT, OLD = range(5, 14)
OBJECTS, ATTRIBUTES = ["car", "tree", "fire hydrant"], ["red", "blue", "old red"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> WordPiece:
    folder = tmp_path_factory.mktemp("words")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}), encoding="utf-8")
    return WordPiece.from_folder(folder)


def regions(*rows) -> ImageRegions:
    """Of (object, confidence, attribute, confidence, box)."""
    objects, sure, attributes, sure_too, boxes = zip(*rows, strict=True)
    return ImageRegions(
        np.zeros([len(rows), 2], np.float32),
        np.float32(boxes),
        np.int32(objects),
        np.float32(sure),
        np.int32(attributes),
        np.float32(sure_too),
    )


# Areas 1, 1/4, 1/16; the last one lies within the second.
WHOLE, QUARTER, SMALL, NEAR = [0, 0, 1, 1], [0, 0, 0.5, 0.5], [0.5, 0.5, 0.75, 0.75], [0, 0, 0.5, 0.4]


def test_labels_by_hand(tokenizer):
    image = regions(
        (0, 0.9, 0, 0.8, SMALL),  # .9 * 1/4 = .225: red car
        (1, 0.5, 1, 0.2, WHOLE),  # .5: tree, its attribute is not sure
        (0, 0.8, 0, 0.3, QUARTER),  # .8 * 1/2 = .4: red car, elsewhere than the first
        (0, 0.7, 0, 0.9, NEAR),  # .7 * sqrt(.2) = .313: red car, at nearly the place of the third: .2 / .25 = .8
        (2, 0.29, 0, 0.9, WHOLE),  # not sure
        (0, 0.7, 1, 0.9, NEAR),  # .313 too: another text
        (-1, 0.9, 0, 0.9, WHOLE),  # unknown
    )
    found = LabelMaker(tokenizer, OBJECTS, ATTRIBUTES).make(image)
    assert found.texts == ["tree", "red car", "blue car", "red car"] and found.regions == [1, 2, 5, 0]
    assert found.pieces == [[TR, EE], [RED, CAR], [BLUE, CAR], [RED, CAR]]
    assert found.words == [[OBJECT] * 2, *[[ATTRIBUTE, OBJECT]] * 3]


@pytest.mark.parametrize(
    ("limits", "count"), [({"slots": 2}, 2), ({"pieces": 7}, 3), ({"pieces": 8}, 3), ({"pieces": 9}, 4)]
)
def test_most_labels_and_pieces(tokenizer, limits, count):
    cars = [(0, 0.9, attribute, 1, [0, 0, 1, 1 - 0.1 * place]) for place, attribute in enumerate((0, 1, 0, 1))]
    # The third and fourth car stand where the first two do: other places for them.
    cars[2], cars[3] = (*cars[2][:4], [0.5, 0.5, 0.8, 0.8]), (*cars[3][:4], [0.5, 0.5, 0.7, 0.8])
    found = LabelMaker(tokenizer, OBJECTS, ATTRIBUTES, **limits).make(regions(*cars))
    assert found.regions == list(range(count))


def test_an_attribute_without_room_and_labels_without_boxes_or_classes(tokenizer):
    maker = LabelMaker(tokenizer, OBJECTS, ATTRIBUTES, inner=4)
    image = regions((2, 0.5, 2, 1, WHOLE), (2, 0.9, 0, 1, WHOLE), (0, 0.9, 2, 1, WHOLE))
    image.boxes = None
    # Nobody knows whether equal texts are of one place.
    assert maker.make(image).texts == ["red fire hydrant", "old red car", "fire hydrant"]
    image.object_conf = image.attribute_conf = None
    assert maker.make(image).regions == [0, 1, 2]
    image.object_id = None
    assert maker.make(image).texts == []
    image.object_id = np.int32([0, 3, 0])
    with pytest.raises(ValueError, match="unknown object: object_id 3, and there are 3 names"):
        maker.make(image)
    with pytest.raises(DataError, match="'fire hydrant' has 3 word pieces"):
        LabelMaker(tokenizer, OBJECTS, ATTRIBUTES, inner=2)


def test_boxes_by_hand():
    boxes = np.float32([[0, 0, 2, 1], [1, 0, 3, 1], [5, 5, 6, 6], [1, 1, 0, 0]])
    assert area(boxes).tolist() == [2, 2, 1, 0]
    np.testing.assert_allclose(intersection_over_union(boxes[0], boxes[:3]), [1, 1 / 3, 0])


def test_names_in_a_file(tmp_path):
    path = tmp_path / "objects.txt"
    path.write_text("car,auto\n tree \nfire hydrant\n", encoding="utf-8")
    assert read_names(path) == OBJECTS
    path.write_text("car\n,auto\n", encoding="utf-8")
    with pytest.raises(DataError, match="objects.txt:2: no name"):
        read_names(path)
    with pytest.raises(DataError, match="cannot read"):
        read_names(tmp_path / "none.txt")


def stored(maker: LabelMaker, *images: ImageRegions) -> dict[str, np.ndarray]:
    arrays = {name: np.full([len(images), *spec.shape[1:]], -1, np.int32) for name, spec in maker.specs().items()}
    for row, image in enumerate(images):
        maker.fill({name: array[row] for name, array in arrays.items()}, maker.make(image))
    return arrays


def test_labels_in_use_have_an_order_drawn_anew(tokenizer):
    maker = LabelMaker(tokenizer, OBJECTS, ATTRIBUTES, slots=4, pieces=12, inner=3)
    image = regions((0, 0.9, 0, 1, WHOLE), (1, 0.8, 1, 0, WHOLE), (2, 0.7, 0, 0, WHOLE))
    none = ImageRegions(image.features)
    arrays = stored(maker, *[image] * 600, none)
    batch = {name: tf.constant(value) for name, value in {**arrays, "features": np.zeros(601)}.items()}
    use = tf.function(lambda batch, seed: maker.in_use(batch, RowDraws(seed, tf.constant(601))))
    found = {name: value.numpy() for name, value in use(batch, tf.constant([3, 1])).items()}
    assert not set(STORED) & found.keys() and "features" in found
    pieces = {0: [RED, CAR], 1: [TR, EE], 2: [FIRE, HYD, RANT]}
    words = {0: [ATTRIBUTE, OBJECT], 1: [OBJECT] * 2, 2: [OBJECT] * 3}
    orders = [tuple(order[:3]) for order in found["label_region"][:600].tolist()]
    assert (found["label_region"][:600, 3] == -1).all()
    for row, order in enumerate(orders):
        ids = [piece for label in order for piece in pieces[label]]
        slots = [slot for slot, label in enumerate(order) for _ in pieces[label]]
        inner = [place for label in order for place in range(len(pieces[label]))]
        kinds = [kind for label in order for kind in words[label]]
        assert found["label_ids"][row].tolist() == [*ids, tokenizer.sep_id, *[tokenizer.pad_id] * 4]
        assert found["label_slot"][row].tolist() == [*slots, *[-1] * 5]
        assert found["label_inner"][row].tolist() == [*inner, *[0] * 5]
        assert found["label_word"][row].tolist() == [*kinds, *[-1] * 5]
        assert found["label_mask"][row].tolist() == [1] * 8 + [0] * 4
    counts = np.array([orders.count(order) for order in set(orders)])
    # Six orders of 100 each; three standard deviations are 27.
    assert len(counts) == 6 and (np.abs(counts - 100) < 40).all()
    assert found["label_ids"][600].tolist() == [tokenizer.sep_id, *[tokenizer.pad_id] * 11]
    assert found["label_region"][600].tolist() == [-1] * 4 and found["label_mask"][600].sum() == 1
    again = use(batch, tf.constant([3, 1]))["label_region"].numpy()
    assert (again == found["label_region"]).all()
    assert (use(batch, tf.constant([4, 1]))["label_region"].numpy() != again).any()


def test_regions_bring_their_labels(tokenizer):
    maker = LabelMaker(tokenizer, OBJECTS, ATTRIBUTES, slots=2, pieces=50, inner=3)
    part = NpzRegions("image", 3, 2, has_boxes=True, classes=True, labels=maker)
    assert part.specs()["stored_labels"].shape.as_list() == [None, 2, 3]
    found = part.from_request({name: tf.constant(value) for name, value in part.samples().items()})
    assert (found["stored_labels"].numpy() == -1).all() and found["stored_label_regions"].shape == [5, 2]
    used = maker.in_use(found, RowDraws(tf.constant([1, 2]), tf.constant(5)))
    assert used["label_ids"].shape[1] == 50 and (used["label_mask"].numpy().sum(axis=1) == 1).all()
