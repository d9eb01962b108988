"""The class of a row, and the domain that only the training and the metrics look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from easytransfer.app.inputs.base import Encoded
from easytransfer.app.targets.labels import SingleLabel
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.labels import LabelMap
from easytransfer.data.table import RowChunk
from easytransfer.metrics.classification import ClassificationEvaluator


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

    def save_assets(self, folder: Path) -> None:
        """Writes classes and domains."""
        super().save_assets(folder)
        self.domains.save(folder)

    def evaluator(self) -> DomainEvaluator:
        """Returns the metrics of classification, over all rows and over domains."""
        return DomainEvaluator(self.names, self.domains.names)


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
