"""Entities of tagged texts with their place in characters, and the page that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from appzoo.sequence_labeling.data import Unit, unit_offsets
from appzoo.sequence_labeling.entities import TagSet

# Rows shown by the page.
PAGE_ROWS = 100
# Hues far apart for neighbouring types.
_HUE_STEP = 137
_STYLE = """body{font:16px/2 sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;width:100%}td{border-top:1px solid #ddd;padding:.2em .6em;vertical-align:top}
td:first-child{color:#888;font-size:.8em;white-space:nowrap}
mark{padding:.1em .25em;border-radius:.3em;color:inherit}mark small{font-size:.65em;color:#444;margin-left:.3em}
.wrong{outline:2px solid #c00}.missed{outline:2px dashed #c00}"""

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
    colours = {kind: f"hsl({_HUE_STEP * i % 360} 70% 85%)" for i, kind in enumerate(types)}
    lines = []
    right = sum(a == b for a, b in zip(true, predicted, strict=True))
    for row, text in enumerate(texts[:PAGE_ROWS]):
        if true[row] == predicted[row]:
            lines.append(_line(f"{row + 1}", text, predicted[row], predicted[row], colours, ""))
        else:
            lines.append(_line(f"{row + 1} predicted", text, predicted[row], true[row], colours, "wrong"))
            lines.append(_line(f"{row + 1} true", text, true[row], predicted[row], colours, "missed"))
    legend = " ".join(_mark(kind, kind, colours, "") for kind in types)
    return (
        f'<!DOCTYPE html>\n<html><head><meta charset="utf-8"><title>Entities</title><style>{_STYLE}</style></head>\n'
        f"<body><h1>Entities of the evaluation table</h1>\n<p>{right:,} of {len(texts):,} rows are right; the first "
        f"{min(len(texts), PAGE_ROWS)} are shown, with both readings where they differ. "
        '<mark class="wrong">predicted only</mark> <mark class="missed">true only</mark></p>\n'
        f"<p>{legend}</p>\n<table>\n" + "\n".join(lines) + "\n</table></body></html>\n"
    )


def _line(
    name: str, text: str, entities: list[Entity], others: list[Entity], colours: dict[str, str], difference: str
) -> str:
    parts, at = [], 0
    for entity in entities:
        parts.append(escape(text[at : entity["start"]]))
        parts.append(_mark(entity["text"], entity["type"], colours, "" if entity in others else difference))
        at = entity["end"]
    return f"<tr><td>{name}</td><td>{''.join(parts)}{escape(text[at:])}</td></tr>"


def _mark(text: str, kind: str, colours: dict[str, str], style: str) -> str:
    name = f' class="{style}"' if style else ""
    small = f"<small>{escape(kind)}</small>" if text != kind else ""
    return f'<mark{name} style="background:{colours[kind]}">{escape(text)}{small}</mark>'
