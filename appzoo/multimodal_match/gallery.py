"""All texts of a table against all its images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from appzoo.multimodal_match.metrics import gallery_recall
from appzoo.multimodal_match.target import MATCH
from easytransfer.data.encoded import EncodedTable
from easytransfer.run.log import say

# Takes a batch to `logits` [rows, 2].
Network = Callable[[Mapping[str, tf.Tensor]], Mapping[str, tf.Tensor]]
_TEXT = ("input_ids", "segment_ids")


def measured(
    network: Network, table: EncodedTable, specs: Mapping[str, tf.TensorSpec], most: int, batch_size: int
) -> dict[str, Any]:
    """Returns recall at k among the texts and images of the matching rows of a table, see `gallery_recall`.

    Equal texts are one text, images of the same id one image. Every text is scored with every image, which costs so
    many calls of the network; texts and images are told apart by the rows that they first stand in.

    Args:
        network: Scores pairs.
        table: Labelled rows.
        specs: Arrays that the network takes.
        most: Most pairs; for more nothing is returned, and that is told.
        batch_size: Pairs at a time.
    """
    rows = np.flatnonzero(np.asarray(table.columns["label_id"]) == MATCH)
    if not len(rows) or not most:
        return {}
    ids, images = table.columns["input_ids"], table.columns["image_id"]
    text_of, texts = _distinct([ids[row].tobytes() for row in rows])
    image_of, pictures = _distinct([images[row] for row in rows])
    if len(texts) * len(pictures) > most:
        say(
            f"recall among all is not measured: {len(texts):,} texts x {len(pictures):,} images are more than "
            f"model.gallery_pairs={most:,}"
        )
        return {}
    relevant = np.zeros([len(texts), len(pictures)], bool)
    relevant[text_of, image_of] = True
    score = _scores(network, table, specs, rows[texts], rows[pictures], batch_size)
    counts = {"texts": len(texts), "images": len(pictures)}
    return {"gallery": counts | gallery_recall(score, relevant)}


def _distinct(values: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Returns which of the distinct values each one is, and where each distinct one first stands."""
    number: dict[Any, int] = {}
    which = [number.setdefault(value, len(number)) for value in values]
    first = np.full(len(number), len(values))
    np.minimum.at(first, which, np.arange(len(values)))
    return np.array(which), first


def _scores(
    network: Network,
    table: EncodedTable,
    specs: Mapping[str, tf.TensorSpec],
    texts: np.ndarray,
    images: np.ndarray,
    batch_size: int,
) -> np.ndarray:
    """Returns the scores of all pairs, float32 [texts, images]; `texts` and `images` are rows of the table."""
    of_text = {name: table.columns[name] for name in _TEXT}
    of_image = [name for name in specs if name not in (*_TEXT, "input_mask")]
    lengths = of_text["input_ids"].lengths[texts]
    width = int(lengths.max())
    call = tf.function(lambda batch: network(batch)["logits"], input_signature=[dict(specs)])
    found = np.zeros(len(texts) * len(images), np.float32)
    for begin in range(0, len(found), batch_size):
        text, image = np.divmod(np.arange(begin, min(begin + batch_size, len(found))), len(images))
        batch = {name: column.padded(texts[text], width) for name, column in of_text.items()}
        batch["input_mask"] = (np.arange(width) < lengths[text, None]).astype(np.int32)
        batch |= {name: np.asarray(table.columns[name][images[image]]) for name in of_image}
        logits = call({name: tf.constant(value) for name, value in batch.items()}).numpy()
        found[begin : begin + len(text)] = logits[:, 1] - logits[:, 0]
    return found.reshape(len(texts), len(images))
