"""The text that is written: its pieces in training, whole texts in metrics and answers."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from appzoo.text_generation.inputs import SourceText, with_end
from appzoo.text_generation.metrics import TextEvaluator
from easytransfer.app.inputs.base import Encoded
from easytransfer.app.targets.base import Target
from easytransfer.data.encoded import EncodedTable, HostColumn
from easytransfer.data.table import RowChunk
from easytransfer.losses.sequence import labelled_tokens, token_cross_entropy_sum
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.run.atomic import write_text
from easytransfer.run.page import application_page, html_table
from easytransfer.train.step import Loss, Losses, Step
from easytransfer.train.task import Batch, Outputs

_PAGE = "texts.html"
_SHOWN = 200


class GeneratedText(Target):
    """Pieces with an end behind them, `target_ids` and `target_mask` [batch, pieces]; the wanted text stays as it is.

    Args:
        column: Table column with the text.
        source: What is read, with the tokenizer that both have.
        max_length: Most pieces in training, the end included; the rest of a text is cut off there, not in metrics.
        label_smoothing: Share of the target spread over all pieces.
    """

    encoded_columns: ClassVar[tuple[str, ...]] = ("target_ids", "target_mask", "wanted")
    masks = {"target_mask": "target_ids"}

    def __init__(self, column: str, source: SourceText, max_length: int, label_smoothing: float = 0.0) -> None:
        self.column, self.source, self.max_length = column, source, max_length
        self.tokenizer = source.tokenizer
        self.label_smoothing = label_smoothing

    def table_columns(self) -> list[str]:
        """Returns the text column."""
        return [self.column]

    def encode(self, chunk: RowChunk, inputs: Sequence[Encoded]) -> Encoded:
        """Returns the pieces and the end of every text; an empty text is a bad row."""
        texts = [str(text) for text in chunk.columns[self.column]]
        for row, text in enumerate(texts):
            if not text.strip():
                chunk.reject(row, self.column, "empty text")
        ids = with_end(self.tokenizer.encode(texts), self.max_length, self.tokenizer.eos_id)
        return Encoded({"target_ids": ids, "wanted": HostColumn.of(texts)})

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns the cross entropy of the pieces, by pieces."""
        labels = tf.where(batch["target_mask"] > 0, batch["target_ids"], -1)
        weight = batch["example_weight"]
        total = token_cross_entropy_sum(labels, outputs["logits"], weight, self.label_smoothing)
        return {"loss": Loss(total, labelled_tokens(labels, weight))}

    def evaluator(self) -> Evaluator:
        """Returns exact match, ROUGE and BLEU."""
        return TextEvaluator("rouge_l", self._texts)

    def _texts(self, batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> tuple[list[str], list[str]]:
        return self.tokenizer.decode(outputs["ids"]), list(batch["wanted"])

    def output_columns(self) -> tuple[str, ...]:
        """Returns one column."""
        return ("predictions",)

    def postprocess(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, list[Any]]:
        """Returns the texts."""
        return {"predictions": self.tokenizer.decode(outputs["ids"])}

    def answer(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """Returns `text` [batch]."""
        return {"text": self.source.graph.decode(outputs["ids"])}

    def report(self, folder: Path, encoded: EncodedTable, outputs: dict[str, np.ndarray]) -> list[str]:
        """Writes a page with wanted and written texts, wrong ones first."""
        rows = range(min(len(encoded), 5 * _SHOWN))
        wanted = [encoded.columns["wanted"][row] for row in rows]
        written = self.tokenizer.decode([outputs["ids"][row] for row in rows])
        pairs = sorted(zip(wanted, written, strict=True), key=lambda pair: pair[0].split() == pair[1].split())
        wrong = sum(a.split() != b.split() for a, b in pairs)
        lead = f"<p>{wrong:,} of the first {len(pairs):,} evaluation rows have other words; shown: "
        lead += f"{min(len(pairs), _SHOWN)}, those first.</p>"
        cells = ((html.escape(a), html.escape(b)) for a, b in pairs[:_SHOWN])
        write_text(folder / _PAGE, application_page("Texts", lead, [html_table(("wanted", "written"), cells)]))
        return [_PAGE]
