"""The class of a row, and the domain that only the training and the metrics look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from easytransfer.app.assets import Assets
from easytransfer.app.inputs.base import Encoded
from easytransfer.app.targets.labels import SingleLabel, label_target
from easytransfer.config.job import JobConfig
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.labels import LabelMap, count_classes
from easytransfer.data.table import RowChunk
from easytransfer.deferred import tf
from easytransfer.errors import ConfigError, ModelError
from easytransfer.layers.draws import RowDraws
from easytransfer.metrics.classification import ClassificationEvaluator
from easytransfer.run.log import say


class DomainMap(LabelMap):
    """Domains in the order of their ids."""

    FILE = "domain_mapping.json"


class DomainLabel(SingleLabel):
    """One class per row, `label_id` int32 [batch], and its domain, `domain_id` int32 [batch].

    Attributes:
        domains: The domains of the training table.
        domain_column: Column with the domain.
        shares: Share of each domain in the training table, float32 [domains]; known once that is.
    """

    encoded_columns = ("label_id", "domain_id")
    asset_files: ClassVar[tuple[str, ...]] = (LabelMap.FILE, DomainMap.FILE)

    domains: DomainMap
    domain_column: str
    shares: np.ndarray | None = None

    def table_columns(self) -> list[str]:
        """Returns the columns with class and domain."""
        return [*super().table_columns(), self.domain_column]

    def encode(self, chunk: RowChunk, inputs: Sequence[Encoded]) -> Encoded:
        """Returns `label_id` and `domain_id`; a domain that the training table does not have makes a bad row."""
        ids = np.zeros(len(chunk.columns[self.domain_column]), np.int32)
        for row, cell in enumerate(chunk.columns[self.domain_column]):
            found = self.domains.id_of(cell)
            if found is None:
                chunk.reject(row, self.domain_column, self.domains.why_unknown(str(cell).strip(), "domain"))
            else:
                ids[row] = found
        return Encoded({**super().encode(chunk, inputs).columns, "domain_id": ids})

    def on_train_table(self, train: EncodedTable) -> None:
        """Resolves class weights and counts the domains."""
        super().on_train_table(train)
        seen = np.bincount(np.asarray(train.columns["domain_id"]), minlength=len(self.domains))
        self.shares = (seen / max(len(train), 1)).astype(np.float32)

    def corrupted(self, draws: RowDraws) -> tf.Tensor:
        """Returns a domain for each row, drawn anew, as frequent as domains are: one-hot float32 [batch, domains]."""
        below = tf.constant(np.cumsum(self.shares)[:-1], tf.float32)
        drawn = tf.reduce_sum(tf.cast(draws.uniform(1) >= below, tf.int32), axis=1)
        return tf.one_hot(drawn, len(self.domains))

    def save_assets(self, folder: Path) -> None:
        """Writes classes and domains."""
        super().save_assets(folder)
        self.domains.save(folder)

    def evaluator(self) -> DomainEvaluator:
        """Returns the metrics of classification, over all rows and over domains."""
        return DomainEvaluator(self.names, self.domains.names)


def domain_target(
    config: JobConfig, assets: Assets, what: str, kind: type[DomainLabel] = DomainLabel, folder: Path | None = None
) -> DomainLabel:
    """Returns classes and domains: those of a trained run, or of the training table.

    Args:
        config: Of the job, whose data section has `domain_name`.
        assets: Where classes and domains are.
        what: The method, for messages.
        kind: Makes the target.
        folder: Run whose domains the training takes over; None takes those of its table.

    Raises:
        ConfigError: There are no classes, or fewer than two domains in the training table.
        ModelError: The run has no domains.
    """
    target = label_target(config, assets, kind, numbers=False)
    target.require_classes(what)
    target.domain_column = config.data.domain_name
    stored = assets.folder or folder
    if stored is not None:
        found = DomainMap.load(stored)
        if found is None:
            raise ModelError(f"{stored} has no {DomainMap.FILE}", fix="take a run that learnt several domains")
        target.domains = found
        return target
    counts = count_classes(assets.values(target.domain_column), skip=config.data.bad_rows != "fail")
    if len(counts) < 2:
        raise ConfigError(
            f"the column {target.domain_column!r} has fewer than two domains",
            received=", ".join(counts) or "none",
            accepted="two or more",
            fix="name another column in data.domain_name, or use text_classify_bert",
        )
    target.domains = DomainMap(sorted(counts))
    target.domains.counts = counts
    say(f"domains: {target.domains.describe_counts()}")
    return target


class DomainEvaluator(ClassificationEvaluator):
    """Metrics of classification; `mean_domain_accuracy` and `worst_domain_accuracy` are of the domains that have rows.

    Args:
        labels: Names of the classes.
        domains: Names of the domains.
    """

    def __init__(self, labels: Sequence[str], domains: Sequence[str]) -> None:
        super().__init__(labels)
        self._domains = list(domains)

    def update(self, batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        """Adds one batch of real rows."""
        super().update(batch, outputs)
        self.add(domain=np.asarray(batch["domain_id"]).reshape(-1))

    def result(self) -> dict[str, float]:
        """Returns the metrics as floats."""
        found = [each["accuracy"] for each in self.per_domain()] or [float("nan")]
        worst, mean = min(found), float(np.mean(found))
        return {**super().result(), "mean_domain_accuracy": mean, "worst_domain_accuracy": worst}

    def per_domain(self) -> list[dict[str, Any]]:
        """Returns `domain`, `rows` and `accuracy` of each domain that has rows."""
        if not len(self):
            return []
        of, right = self.rows("domain"), self.rows("true") == self.rows("predicted")
        return [
            {"domain": name, "rows": int((of == i).sum()), "accuracy": float(right[of == i].mean())}
            for i, name in enumerate(self._domains)
            if (of == i).any()
        ]

    def report(self) -> dict[str, Any]:
        """Returns parts of the report, the accuracy of each domain among them."""
        return {**super().report(), "per_domain": self.per_domain()}
