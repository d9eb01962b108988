"""Entities in tag sequences, and their exact precision, recall and F1 (CoNLL-2003 shared task, section 4).

Tags are `O` outside of entities, or a prefix and a type: `B-PER` begins, `I-PER` continues, `E-PER` ends an entity and
`S-PER` is one of a single word. The reading is the lenient one of the task's script conlleval: whatever the scheme, an
entity also begins where the type changes or after `O`, so IOB1, IOB2 (BIO) and IOBES and broken sequences all have
entities. `M`, `L` and `U` of the schemes BMES and BILOU mean `I`, `E` and `S`. Any other tag, such as a part of speech,
is an entity of one word.

A set of tags may be written otherwise: prefixes in small letters (`b-per`), with an underscore (`B_PER`) or behind the
type (`PER-B`, `PER_B`); what is written so for one type is so for all. Beside such or usual prefixes, `o`, `0`, letters
that look like `O`, and the words other, out and outside are outside too, `0` also in a set without `O`. `unusual_tags`
says so.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from easytransfer.metrics import scores
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.metrics.exact_sum import ExactSum
from easytransfer.metrics.names import choose_metric, higher_is_better

OUTSIDE = "O"
_PREFIXED = re.compile(r"([BIESMLU])(?:-(.*))?", re.DOTALL)
_SAME_ROLE = {"M": "I", "L": "E", "U": "S"}
# Type of entities whose tags are a bare prefix.
UNTYPED = "_"


def parse_tag(tag: str) -> tuple[str, str]:
    """Returns the role (O, B, I, E or S) and the type of a tag."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    found = _PREFIXED.fullmatch(tag)
    if not found:
        return "S", tag
    return _SAME_ROLE.get(found[1], found[1]), found[2] or UNTYPED


# The digit, the small letter and foreign letters that look like the tag of words outside of entities.
_LIKE_OUTSIDE = frozenset("0o\u039f\u03bf\u041e\u043e")
_OUTSIDE_WORDS = frozenset(("other", "out", "outside"))
_PREFIX_FORMS = tuple(re.compile(rf"(?P<role>[BIESMLU]){mark}(?P<type>.+)", re.I | re.S) for mark in "-_")
_SUFFIX_FORMS = tuple(re.compile(rf"(?P<type>.+){mark}(?P<role>[BIESMLU])", re.I | re.S) for mark in "-_")
_BARE = re.compile(r"(?P<role>[BIESMLU])(?P<type>)", re.I)


def read_tags(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Returns role and type of every tag of a set, which may be written otherwise than `parse_tag` knows tags."""
    forms = _unusual_forms(names)
    scheme = _has_prefixes(names) or bool(forms)
    parsed = {}
    for name in names:
        if (scheme and _may_be_outside(name)) or (name == "0" and OUTSIDE not in names):
            parsed[name] = (OUTSIDE, "")
        elif found := next(filter(None, (form.fullmatch(name) for form in forms)), None):
            parsed[name] = parse_tag(f"{found['role'].upper()}-{found['type']}")
        else:
            parsed[name] = parse_tag(name)
    return parsed


def unusual_tags(names: Sequence[str]) -> dict[str, str]:
    """Returns how tags are read that are not written as the tags of entities are, where the set has such tags."""
    scheme, unusual = _has_prefixes(names) or bool(_unusual_forms(names)), {}
    for name, (role, kind) in read_tags(names).items():
        if role == OUTSIDE:
            if name != OUTSIDE:
                unusual[name] = f"{OUTSIDE}, outside of entities"
        elif (role, kind) != parse_tag(name):
            unusual[name] = role if kind == UNTYPED else f"{role}-{kind}"
        elif scheme and not _PREFIXED.fullmatch(name):
            unusual[name] = f"an entity of one word, of the type {name}"
    return unusual


def _may_be_outside(name: str) -> bool:
    return name == OUTSIDE or name in _LIKE_OUTSIDE or name.lower() in _OUTSIDE_WORDS


def _has_prefixes(names: Sequence[str]) -> bool:
    """Returns whether tags have a prefix and a type, or are several bare prefixes."""
    found = [match for match in map(_PREFIXED.fullmatch, names) if match]
    return len(found) > 1 or _has_typed(names)


def _has_typed(names: Sequence[str]) -> bool:
    """Returns whether a tag has a prefix and a type."""
    return any(match and match[2] for match in map(_PREFIXED.fullmatch, names))


def _unusual_forms(names: Sequence[str]) -> list[re.Pattern[str]]:
    """Returns the forms in which tags of the set have roles, where it takes more than `parse_tag` to read them.

    Parts of speech may look like one of the forms, so a form counts only where one of its types has several roles, or
    where it is that of all tags beside an outside tag.
    """
    tags = [name for name in names if not _may_be_outside(name)]
    outside = len(tags) < len(names)
    if forms := [form for form in _SUFFIX_FORMS if _is_suffix_scheme(form, tags, outside)]:
        return forms
    for form in _PREFIX_FORMS:
        roles, fits = _roles(form, tags)
        if any(len(some) > 1 for some in roles.values()) or (roles and fits and outside):
            forms.append(form)
    if _has_typed(tags) and _PREFIX_FORMS[0] not in forms:
        forms.append(_PREFIX_FORMS[0])
    roles, fits = _roles(_BARE, tags)
    return forms + [_BARE] * (fits and "B" in roles[""] and len(roles[""]) > 1)


def _is_suffix_scheme(form: re.Pattern[str], tags: Sequence[str], outside: bool) -> bool:
    """Returns whether roles stand behind the types: two of the three signs, as endings such as `-S` are common."""
    roles, fits = _roles(form, tags)
    beginning = [some for some in roles.values() if "B" in some]
    several = any(len(some) > 1 for some in beginning)
    if not beginning or fits + outside + several < 2:
        return False
    # Types of one letter make `L-B` look like a prefix and a type.
    return not any(_roles(prefix, tags)[1] for prefix in _PREFIX_FORMS) if fits else not _has_typed(tags)


def _roles(form: re.Pattern[str], tags: Sequence[str]) -> tuple[dict[str, set[str]], bool]:
    """Returns the roles by type of the tags of a form, and whether all tags are of it."""
    roles: dict[str, set[str]] = defaultdict(set)
    found = [match for match in map(form.fullmatch, tags) if match]
    for match in found:
        roles[match["type"]].add(match["role"].upper())
    return roles, len(found) == len(tags)


class TagSet:
    """Finds entities in arrays of tag ids.

    Args:
        names: Tags in id order.

    Attributes:
        types: Entity types, sorted.
    """

    def __init__(self, names: Sequence[str]) -> None:
        parsed = list(read_tags(names).values())
        self.names = list(names)
        self.types = sorted({kind for role, kind in parsed if role != OUTSIDE})
        self._outside = np.array([role == OUTSIDE for role, _ in parsed], bool)
        self._begins = np.array([role in "BS" for role, _ in parsed], bool)
        self._ends = np.array([role in "ES" for role, _ in parsed], bool)
        self._type = np.array([self.types.index(kind) if role != OUTSIDE else -1 for role, kind in parsed], np.int64)

    def spans(self, ids: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
        """Returns the entities of sequences that lie end to end.

        Args:
            ids: Tag ids of all sequences, int [total].
            lengths: Words of each sequence; no entity reaches over its end.

        Returns:
            int64 [entities, 3]: first position in `ids`, position behind the last, index in `types`; in order.
        """
        ids = np.asarray(ids, np.int64)
        outside, kind = self._outside[ids], self._type[ids]
        first = np.zeros(len(ids) + 1, bool)
        first[np.cumsum([0, *lengths])] = True
        # conlleval's rule: a new piece begins at B or S, behind E, S or outside, and where the type changes.
        cut = first[:-1] | self._begins[ids]
        cut[1:] |= outside[:-1] | self._ends[ids[:-1]] | (kind[1:] != kind[:-1])
        begins = cut & ~outside
        # An entity ends where the next position is cut off from it, is outside, or does not exist.
        ends = np.append(cut[1:] | outside[1:], True)[: len(ids)] & ~outside
        starts = np.flatnonzero(begins)
        return np.stack([starts, np.flatnonzero(ends) + 1, kind[starts]], axis=1).astype(np.int64)


def entities(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Returns (type, first word, word behind the last) of the entities of one sequence."""
    tag_set = TagSet(sorted(set(tags)))
    ids = np.searchsorted(tag_set.names, tags) if len(tags) else np.zeros(0, int)
    return [(tag_set.types[kind], int(start), int(end)) for start, end, kind in tag_set.spans(ids, [len(tags)])]


def to_bio(tags: Sequence[str]) -> list[str]:
    """Returns the same entities in the scheme BIO: `B-` at the first word of each, `I-` at the others."""
    result = [OUTSIDE] * len(tags)
    for kind, start, end in entities(tags):
        result[start:end] = [f"B-{kind}"] + [f"I-{kind}"] * (end - start - 1)
    return result


@dataclass
class _Window:
    """True and predicted tag ids of the words of a window, int [words]; `count` is how many windows the row has."""

    count: int
    gold: np.ndarray
    predicted: np.ndarray


def _in_order(windows: dict[int, _Window]) -> list[_Window]:
    return [windows[number] for number in sorted(windows)]


class _Tally:
    """Counts over whole rows.

    Attributes:
        cells: Words by true and predicted tag id.
        entities: By type how many are right, predicted and true, int64 [3, types].
    """

    def __init__(self, tag_set: TagSet) -> None:
        self._tag_set = tag_set
        self.rows = self.windows = 0
        self.cells: Counter[tuple[int, int]] = Counter()
        self.entities = np.zeros((3, len(tag_set.types)), np.int64)

    @property
    def words(self) -> int:
        """Number of words."""
        return sum(self.cells.values())

    def add(self, rows: list[list[_Window]]) -> None:
        """Adds rows, the windows of each in order."""
        windows = list(chain.from_iterable(rows))
        if not windows:
            return
        self.rows, self.windows = self.rows + len(rows), self.windows + len(windows)
        # Windows of a row end to end: an entity may reach over their border.
        gold, predicted = (np.concatenate([getattr(w, side) for w in windows]) for side in ("gold", "predicted"))
        lengths = [sum(len(window.gold) for window in row) for row in rows]
        self.cells.update(zip(gold.tolist(), predicted.tolist(), strict=True))
        true, found = self._tag_set.spans(gold, lengths), self._tag_set.spans(predicted, lengths)
        # Entities of one side do not overlap, so those with one beginning are the only ones that can be equal.
        _, mine, theirs = np.intersect1d(true[:, 0], found[:, 0], return_indices=True)
        right = true[mine][(true[mine] == found[theirs]).all(axis=1)]
        types = len(self._tag_set.types)
        self.entities = self.entities + [np.bincount(spans[:, 2], minlength=types) for spans in (right, found, true)]

    def merge(self, other: _Tally) -> None:
        """Adds the counts of other rows."""
        self.rows, self.windows = self.rows + other.rows, self.windows + other.windows
        self.cells.update(other.cells)
        self.entities = self.entities + other.entities


class EntityEvaluator(Evaluator):
    """Token accuracy and entity scores from the windows of every row.

    Batches hold `label_id` [B, tokens] with the tag id of every token, and `word_starts` [B, words], the first pieces
    of the words that the window answers for, by their numbers among those of the text from 1, 0 or less behind the
    last; both may be padded arrays or `Ragged`. Where rows are
    cut into windows, `place` [B] holds lists of the row number, the number of the window in its row, and how many there
    are; without it every example is a row. Outputs hold `tags` [B, words] and `log_probabilities` [B, words, tags].
    Windows may come in any order. Kept are counts, and words only of rows whose last window has not come yet.

    `precision`, `recall` and `f1` are over entities of all types together (micro average): an entity is right if its
    first and last word and its type are. `accuracy` is over words and `loss` the mean of -log p(true tag).

    Args:
        labels: Tags in id order.
        before: Special tokens before the text, see `Layout`.
        main_metric: Metric that picks the best checkpoint.
    """

    names = ("accuracy", "precision", "recall", "f1", "loss")

    def __init__(self, labels: Sequence[str], *, before: int = 1, main_metric: str | None = None) -> None:
        self._before = before
        self.labels, self._tag_set = list(labels), TagSet(labels)
        self.main_metric = choose_metric(main_metric, self.names, "f1")
        self.higher_is_better = higher_is_better(self.main_metric)
        self._loss, self._tally = ExactSum(), _Tally(self._tag_set)
        # By row and window, the windows of rows that have more of them.
        self._waiting: dict[int, dict[int, _Window]] = {}

    def update(self, batch: dict[str, Any], outputs: dict[str, Any]) -> None:
        """Adds one batch of real windows."""
        whole: list[list[_Window]] = []
        losses = [np.zeros(0)]
        for i, (tags, logs) in enumerate(zip(outputs["tags"], outputs["log_probabilities"], strict=True)):
            starts = np.asarray(batch["word_starts"][i])
            gold = np.asarray(batch["label_id"][i])[starts[starts > 0] - 1 + self._before]
            losses.append(-np.asarray(logs, np.float64)[np.arange(len(gold)), gold])
            row, number, count = batch["place"][i] if "place" in batch else (0, 0, 1)
            whole += self._completed(row, number, _Window(count, gold, np.array(tags[: len(gold)])))
        self._tally.add(whole)
        self._loss.add(np.concatenate(losses))

    def _completed(self, row: int, number: int, window: _Window) -> list[list[_Window]]:
        """Takes a window in; returns the windows of its row, in order, where it was the last to come."""
        if window.count == 1:
            return [[window]]
        windows = self._waiting.setdefault(row, {})
        windows[number] = window
        return [_in_order(self._waiting.pop(row))] if len(windows) == window.count else []

    def state(self) -> tuple[_Tally, ExactSum, dict[int, dict[int, _Window]]]:
        """Returns the counts, the losses, and the windows of rows that have more."""
        return self._tally, self._loss, self._waiting

    def merge(self, state: tuple[_Tally, ExactSum, dict[int, dict[int, _Window]]]) -> None:
        """Adds windows of another evaluator; a row may have some in both."""
        tally, loss, waiting = state
        self._tally.merge(tally)
        self._loss.merge(loss)
        windows = ((row, number, window) for row, found in waiting.items() for number, window in found.items())
        self._tally.add([found for window in windows for found in self._completed(*window)])

    def _total(self) -> _Tally:
        """Returns the counts, of rows that lack windows too."""
        total = _Tally(self._tag_set)
        total.merge(self._tally)
        total.add([_in_order(self._waiting[row]) for row in sorted(self._waiting)])
        return total

    def result(self) -> dict[str, float]:
        """Returns the metrics as floats; all NaN when there were no words, 0 for quotients without a denominator."""
        total = self._total()
        if not total.words:
            return dict.fromkeys(self.names, float("nan"))
        right, found, true = total.entities.sum(axis=1)
        return {
            "accuracy": sum(count for (a, b), count in total.cells.items() if a == b) / total.words,
            "precision": float(scores.divide(right, found)),
            "recall": float(scores.divide(right, true)),
            "f1": float(scores.f1_from_counts(right, found, true)),
            "loss": self._loss.mean(),
        }

    def per_class(self) -> list[dict[str, Any]]:
        """Returns `label`, `precision`, `recall`, `f1`, `support` (true) and `predicted` entities per type."""
        right, found, true = self._total().entities
        columns = (scores.divide(right, found), scores.divide(right, true), scores.f1_from_counts(right, found, true))
        names = ("precision", "recall", "f1")
        return [
            {"label": label, **{n: float(c[i]) for n, c in zip(names, columns, strict=True)}}
            | {"support": int(true[i]), "predicted": int(found[i])}
            for i, label in enumerate(self._tag_set.types)
        ]

    def report(self) -> dict[str, Any]:
        """Returns facts for the model card: numbers of `rows`, `windows` and `words`, `labels` (tags), `confusion` of
        words by tag, and `per_class` with a row per entity type."""
        total = self._total()
        cells = np.array(sorted(total.cells), np.int64).reshape(-1, 2)
        counts = np.array([total.cells[cell] for cell in sorted(total.cells)], np.int64)
        return {
            "rows": total.rows,
            "windows": total.windows,
            "words": total.words,
            "labels": self.labels,
            **scores.cells_report(cells, counts, len(self.labels)),
            "confusion_of": "words",
            "per_class": self.per_class(),
        }
