"""What a label column holds, where nobody says so: cells and the answer side by side."""

import pytest

from easytransfer.data.label_kind import label_kind
from easytransfer.errors import ConfigError


@pytest.mark.parametrize(
    ("cells", "declared", "expected"),
    [
        (["yes", "no", "yes"], False, "classes"),
        (["yes", "no"], True, "classes"),
        ([True, False], False, "classes"),
        (["0", "1", " 1 ", 1.0], False, "classes"),
        (["-1", "1"], False, "classes"),
        (["0.5", "1", "2", "3"], False, "numbers"),
        ([0.25, 4], False, "numbers"),
        ([["a"], ["b"]], False, "classes"),
        ([["a", "b"]], False, "classes"),
        (["a,b", "a"], False, "classes"),
        (["", "", None][:2], False, None),
        ([], False, None),
        (["", "yes"], False, "classes"),
        # Declared columns mean what they meant in the original: what can be a number is one.
        (["0", "1"], True, "numbers"),
        ([1, 2, 3], True, "numbers"),
        (["3", "bad"], True, "numbers"),
    ],
)
def test_cells_say_what_they_are(cells, declared, expected):
    assert label_kind(iter(cells), "label", declared=declared) == expected


@pytest.mark.parametrize(
    ("cells", "shown"),
    [
        (["1", "2", "3"], r"has whole numbers: are these classes, or amounts\?; got '?1, 2, 3"),
        (["good", "3"], r"has names and numbers: are these classes\?; got .*good.* and 3"),
        (["3", "NaN"], r"has names and numbers"),
    ],
)
def test_what_can_be_both_is_refused_with_both_ways_out(cells, shown):
    with pytest.raises(ConfigError, match=shown) as raised:
        label_kind(cells, "stars", declared=False)
    message = str(raised.value)
    assert "'stars'" in message and "=auto makes a class of each" in message and "=none predicts numbers" in message
