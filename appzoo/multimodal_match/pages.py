"""A page of texts with the images that the network finds for them."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import numpy as np

from appzoo.multimodal_match.target import MATCH
from easytransfer.data.encoded import EncodedTable
from easytransfer.run.atomic import write_text
from easytransfer.run.page import application_page, html_table
from easytransfer.text.tokenizer import Tokenizer

PAGE = "retrieval.html"
_SHOWN, _IMAGES = 50, 5
_LEAD = """<p>Texts with several rows of the evaluation table: the images of these rows by score,
<mark class="hue-2">those that match</mark> and others, with the probability of the match.</p>"""


def write_retrieval(folder: Path, table: EncodedTable, logits: np.ndarray, tokenizer: Tokenizer) -> list[str]:
    """Writes the page into a run folder; returns its name, nothing where no text has several rows.

    Args:
        folder: Run folder.
        table: Labelled rows.
        logits: [rows, 2], the match second.
        tokenizer: Of the texts.
    """
    ids, names = table.columns["input_ids"], table.columns["image_id"]
    lists = table.columns.get("list_id")
    groups: dict[Any, list[int]] = {}
    for row in range(len(table)):
        key = ids[row].tobytes() if lists is None else (int(lists[row]), ids[row].tobytes())
        groups.setdefault(key, []).append(row)
    score = (logits[:, MATCH] - logits[:, 1 - MATCH]).astype(np.float64)
    label = np.asarray(table.columns["label_id"])
    found = []
    for rows in [rows for rows in groups.values() if len(rows) > 1][:_SHOWN]:
        order = np.array(rows)[np.argsort(-score[rows], kind="stable")]
        matches = np.flatnonzero(label[order] == MATCH)
        place = f"{matches[0] + 1} of {len(order)}" if len(matches) else "none"
        shown = ", ".join(_image(str(names[row]), score[row], label[row] == MATCH) for row in order[:_IMAGES].tolist())
        found.append((_text(ids[rows[0]], tokenizer), place, shown))
    if not found:
        return []
    listed = html_table(("text", "best match at", "images"), found)
    write_text(folder / PAGE, application_page("Retrieval", _LEAD, [listed]))
    return [PAGE]


def _text(ids: np.ndarray, tokenizer: Tokenizer) -> str:
    special = {tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id}
    pieces = [tokenizer.vocab[number] for number in ids.tolist() if number not in special]
    return html.escape(" ".join(pieces).replace(" ##", ""))


def _image(name: str, score: float, match: bool) -> str:
    shown = f"{html.escape(name)} {1 / (1 + np.exp(-score)):.2f}"
    return f'<mark class="hue-2">{shown}</mark>' if match else shown
