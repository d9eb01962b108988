"""How typical rows are of their class, in their own domain and in the others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from appzoo.domain_label import DomainLabel
from appzoo.encoder import token_batch
from appzoo.layer_probes import mean_of_tokens
from appzoo.teacher_outputs import outputs_of_machine
from easytransfer.app.frozen import Frozen
from easytransfer.config.job import JobConfig
from easytransfer.data.encoded import EncodedTable
from easytransfer.deferred import tf
from easytransfer.distributed.workers import Workers
from easytransfer.run.log import say
from easytransfer.train.task import Batch, Outputs
from easytransfer.train.weights import named_arrays
from modelzoo.backbone import Backbone

# Column of the training table with the weights of its rows, and what they are told from.
TYPICALITY, _FEATURES = "typicality", "features"
# Rows whose features are looked at together.
_BLOCK = 8192


def typicality(features: np.ndarray, classes: np.ndarray, domains: np.ndarray) -> np.ndarray:
    """Returns the weight of every row, float32 [rows], at least 0.

    With the centroid c_dy of the features of domain d and class y, a row of features h has

        w = 1/2 (cos(h, c_dy) + cos(h, mean of c_d'y over the other domains d' that have the class))

    and cos(h, c_dy) alone where no other domain has the class (Wang et al. 2020, arXiv 2003.13003, section 3.2, with
    all domains weighing alike). A negative weight, by which a row would be unlearnt, is 0.

    Args:
        features: h, [rows, width]; read in blocks, so that it may be on disk.
        classes: y, int [rows].
        domains: d, int [rows].
    """
    weights = np.zeros(len(classes), np.float32)
    if not len(classes):
        return weights
    shape = int(domains.max()) + 1, int(classes.max()) + 1
    sums, counts = np.zeros((*shape, features.shape[1])), np.zeros(shape)
    for rows in _blocks(len(classes)):
        np.add.at(sums, (domains[rows], classes[rows]), features[rows].astype(np.float64))
        np.add.at(counts, (domains[rows], classes[rows]), 1.0)
    own = sums / np.maximum(counts, 1)[:, :, None]
    # Of centroids that are not there the sum is 0, too.
    others = (counts > 0).sum(axis=0) - (counts > 0)
    other = (own.sum(axis=0) - own) / np.maximum(others, 1)[:, :, None]
    for rows in _blocks(len(classes)):
        h, place = features[rows].astype(np.float64), (domains[rows], classes[rows])
        first, second = _cosine(h, own[place]), _cosine(h, other[place])
        weights[rows] = np.maximum(np.where(others[place] > 0, (first + second) / 2, first), 0)
    return weights


def _blocks(rows: int) -> Iterator[slice]:
    return (slice(start, min(start + _BLOCK, rows)) for start in range(0, rows, _BLOCK))


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the cosine of each row of a and b, 0 where one of them is 0."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide((a * b).sum(axis=1), lengths, out=np.zeros(len(a)), where=lengths > 0)


def add_typicality(
    train: EncodedTable,
    target: DomainLabel,
    backbone: Backbone,
    specs: dict[str, tf.TensorSpec],
    name: str,
    config: JobConfig,
    run_dir: Path,
    workers: Workers,
) -> None:
    """Adds the column `typicality` to a training table, which an encoder sees once on every machine.

    The features of a row are the mean over its tokens of the last layer.

    Args:
        train: Examples as the training has them.
        target: Its classes and domains.
        backbone: The encoder as it is before any training.
        specs: Arrays that it takes.
        name: What the record calls the encoder.
        config: Of the job: where files are, and examples of a call.
        run_dir: Has the features until the run is done where `data.cache_dir` is not given.
        workers: Those of the job.
    """
    backbone(token_batch())

    def call(batch: Batch) -> Outputs:
        return {_FEATURES: mean_of_tokens(backbone(batch)["hidden_states"][-1], batch["input_mask"])}

    digest = hashlib.sha256()
    for weight, value in named_arrays(backbone.weights).items():
        digest.update(weight.encode())
        digest.update(np.ascontiguousarray(value).data)
    record = {"path": name, "sha256": digest.hexdigest()}
    frozen = Frozen("encoder", call, specs, record)
    features = outputs_of_machine(frozen, train, config, run_dir, workers, output=_FEATURES)
    classes, domains = (np.asarray(train.columns[column]) for column in target.encoded_columns)
    weights = typicality(features, classes, domains)
    train.columns[TYPICALITY] = weights
    say(f"typicality of the training rows: mean {weights.mean():.3f}, {weights.min():.3f} to {weights.max():.3f}")
