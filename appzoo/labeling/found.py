"""Entities of tagged texts with their place in characters, and the page that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from appzoo.labeling.data import Unit, unit_offsets
from appzoo.labeling.entities import TagSet
from easytransfer.run.page import HUES, application_page, html_table

# Rows shown by the page.
PAGE_ROWS = 100

Entity = dict[str, Any]


def found_entities(
    labels: Sequence[str], unit: Unit, texts: Sequence[str], tags: np.ndarray, words: Sequence[int]
) -> list[list[Entity]]:
    """Returns the entities of every text: `type`, `start` and `end` in characters, `text`.

    Args:
        labels: Tags in id order.
        unit: What has a tag.
        texts: Texts of the rows.
        tags: Tag ids of all words of all rows, end to end.
        words: Number of words of every row.
    """
    tag_set, firsts = TagSet(labels), np.cumsum([0, *words])
    spans = tag_set.spans(tags, words)
    rows = np.searchsorted(firsts, spans[:, 0], side="right") - 1
    found: list[list[Entity]] = [[] for _ in texts]
    latest, offsets = -1, []
    for row, (first, last, kind) in zip(rows.tolist(), spans.tolist(), strict=True):
        if row != latest:
            latest, offsets = row, unit_offsets(texts[row], unit)
        start, end = offsets[first - firsts[row]][0], offsets[last - 1 - firsts[row]][1]
        found[row].append({"type": tag_set.types[kind], "start": start, "end": end, "text": texts[row][start:end]})
    return found


def entity_page(texts: Sequence[str], true: Sequence[list[Entity]], predicted: Sequence[list[Entity]]) -> str:
    """Returns a self-contained HTML page with the entities of the first rows, differences outlined.

    Args:
        texts: Texts of the rows.
        true: True entities of each.
        predicted: Predicted entities of each.
    """
    types = sorted({entity["type"] for row in [*true, *predicted] for entity in row})
    hues = {kind: f"hue-{number % HUES}" for number, kind in enumerate(types)}
    rows = []
    right = sum(a == b for a, b in zip(true, predicted, strict=True))
    for row, text in enumerate(texts[:PAGE_ROWS]):
        if true[row] == predicted[row]:
            rows.append((f"{row + 1}", _line(text, predicted[row], predicted[row], hues, "")))
        else:
            rows.append((f"{row + 1} predicted", _line(text, predicted[row], true[row], hues, "wrong")))
            rows.append((f"{row + 1} true", _line(text, true[row], predicted[row], hues, "missed")))
    lead = (
        f"<p>{right:,} of {len(texts):,} rows are right; the first {min(len(texts), PAGE_ROWS)} are shown, "
        'with both readings where they differ. <mark class="wrong">predicted only</mark> '
        '<mark class="missed">true only</mark></p>'
        f"\n<p>{' '.join(_mark(kind, kind, hues, '') for kind in types)}</p>"
    )
    return application_page("Entities of the evaluation table", lead, [html_table(("row", "text"), rows)])


def _line(text: str, entities: list[Entity], others: list[Entity], hues: dict[str, str], difference: str) -> str:
    parts, at = [], 0
    for entity in entities:
        parts.append(escape(text[at : entity["start"]]))
        parts.append(_mark(entity["text"], entity["type"], hues, "" if entity in others else difference))
        at = entity["end"]
    return f'<div class="text">{"".join(parts)}{escape(text[at:])}</div>'


def _mark(text: str, kind: str, hues: dict[str, str], style: str) -> str:
    small = f"<small>{escape(kind)}</small>" if text != kind else ""
    return f'<mark class="{f"{hues[kind]} {style}".strip()}">{escape(text)}{small}</mark>'
