"""Layouts of rows, against rows written by hand."""

import numpy as np
import pytest
import tensorflow as tf

from easytransfer.data.encoded import Ragged
from easytransfer.errors import ConfigError
from easytransfer.text.graph import GraphTokenizer
from easytransfer.text.packing import CLS_FIRST, CLS_LAST, SEP_TWICE

IDS = {"pad": 0, "cls": 1, "sep": 2}
FIRST, SECOND = [[10, 11], [], [12]], [[20], [21, 22], []]
ROWS = {
    (CLS_FIRST, False): ([[1, 10, 11, 2], [1, 2], [1, 12, 2]], [[0] * 4, [0] * 2, [0] * 3]),
    (CLS_FIRST, True): (
        [[1, 10, 11, 2, 20, 2], [1, 2, 21, 22, 2], [1, 12, 2, 2]],
        [[0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 1]],
    ),
    (CLS_LAST, False): ([[10, 11, 2, 1], [2, 1], [12, 2, 1]], [[0, 0, 0, 2], [0, 2], [0, 0, 2]]),
    (CLS_LAST, True): (
        [[10, 11, 2, 20, 2, 1], [2, 21, 22, 2, 1], [12, 2, 2, 1]],
        [[0, 0, 0, 1, 1, 2], [0, 1, 1, 1, 2], [0, 0, 1, 2]],
    ),
    (SEP_TWICE, True): (
        [[1, 10, 11, 2, 2, 20, 2], [1, 2, 2, 21, 22, 2], [1, 12, 2, 2, 2]],
        [[0] * 7, [0] * 6, [0] * 5],
    ),
}


class Pieces(GraphTokenizer):
    """Numbers of a text as its pieces."""

    def pieces(self, text):
        return tf.strings.to_number(tf.strings.split(text), tf.int32).with_row_splits_dtype(tf.int64)

    def pieces_with_offsets(self, text):
        raise NotImplementedError


@pytest.mark.parametrize("layout_paired", ROWS, ids=lambda value: f"{value[0].single[0][0]}-{value[1]}")
def test_rows_are_those_written_by_hand(layout_paired):
    (layout, paired), (ids, segments) = layout_paired, ROWS[layout_paired]
    texts = [FIRST, SECOND] if paired else [FIRST]
    first, second = (Ragged.from_lists(text) for text in (FIRST, SECOND))
    found = layout.assemble(IDS, first, second if paired else None)
    for rows, wanted in zip(found, (ids, segments), strict=True):
        assert rows.values.dtype == np.int32 and [rows[i].tolist() for i in range(3)] == wanted
    assert layout.specials(paired) == len(ids[0]) - sum(len(text[0]) for text in texts)
    assert ids[0].index(10) == layout.before("first", paired)
    if paired:
        assert ids[0].index(20) == len(FIRST[0]) + layout.before("second", paired)

    graph = Pieces(8, IDS, "pieces", layout)
    batch = graph(*(tf.constant([" ".join(map(str, row)) for row in text]) for text in texts))
    width = max(map(len, ids))
    for name, wanted in (("input_ids", ids), ("segment_ids", segments), ("input_mask", [[1] * len(r) for r in ids])):
        assert batch[name].numpy().tolist() == [row + [0] * (width - len(row)) for row in wanted]


def test_room_is_what_special_tokens_leave():
    assert [layout.room(9, paired) for layout in (CLS_FIRST, CLS_LAST, SEP_TWICE) for paired in (False, True)] == [
        *(7, 6, 7, 6, 7, 5)
    ]
    assert not CLS_FIRST.ends_with_cls and CLS_LAST.ends_with_cls
    with pytest.raises(ConfigError, match="no room for text; got 2; accepted: 4 or more"):
        CLS_LAST.room(2, paired=False)
    with pytest.raises(ConfigError, match="5 or more"):
        SEP_TWICE.room(4, paired=True)
