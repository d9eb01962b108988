"""How well labels are guessed where the image is another one: as well as by chance, if labels are read of images."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from easytransfer.app.contract import App
from easytransfer.data.encoded import EncodedTable

# Rows that are looked at.
MOST_ROWS = 20_000
# What a network sees of an image; which regions there are, and what they are called, stays.
_SEEN = ("features", "boxes")
_FIGURES = ("mlam_accuracy", "label_match_auc", "pointer_accuracy")


def figures_of_other_images(app: App, encoded: EncodedTable) -> dict[str, float]:
    """Returns the figures of labels, each row with the image of another row.

    The other row is half a table away; rows of the same image are left out.

    Args:
        app: With its model.
        encoded: Labelled rows.
    """
    rows = min(len(encoded), MOST_ROWS)
    size = app.config.train.eval_batch_size
    call = tf.function(app.evaluate_step, reduce_retracing=True)
    evaluator = app.evaluator()
    for start in range(0, rows, size):
        places = np.arange(start, min(start + size, rows))
        own, other = encoded.batch(places), encoded.batch((places + rows // 2) % rows)
        seen = {name: other[name] for name in _SEEN}
        kept = np.flatnonzero(own["image_id"] != other["image_id"])
        if not len(kept):
            continue
        batch = {name: value[kept] for name, value in {**own, **seen}.items()}
        tensors = {name: tf.constant(value) for name, value in app.evaluation_inputs(batch).items()}
        evaluator.update(batch, {name: value.numpy() for name, value in call(tensors).items()})
    return {name: value for name, value in evaluator.result().items() if name in _FIGURES}
