"""Applications that read the pooled output of a pre-trained encoder for one text or a packed pair of texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from appzoo.encoder import SAMPLE_TEXTS, Encoder, count_tokens, token_batch
from appzoo.serving import ids_signature
from appzoo.target_app import TargetApp
from easytransfer import keras
from easytransfer.app.contract import Cells, no_cells
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.table import RowChunk
from easytransfer.export.servable import Signature
from easytransfer.layers.dropout import Dropout
from modelzoo.bert.backbone import BertBackbone


class PooledApp(TargetApp):
    """Encoder, dropout on the pooled first token, one dense layer (BERT, arXiv 1810.04805, section 4.1)."""

    encoder: Encoder
    splits = ("tensor", "pipeline")

    def prepare(self, folder: Path | None, cells: Cells = no_cells) -> None:
        """Loads tokenizer and labels from the ModelZoo and the label option, or from `folder` of a trained run."""
        self.encoder = Encoder(self.config, folder)
        self.prepare_target(folder, cells)

    @property
    def paired(self) -> bool:
        """Whether a row has two texts."""
        return self.config.data.second_sequence is not None

    def save_assets(self, folder: Path) -> None:
        """Writes vocabulary, tokenizer settings, encoder configuration and label map."""
        self.encoder.save(folder)
        super().save_assets(folder)

    def build_model(self, folder: Path | None = None) -> keras.Model:
        """Builds encoder and head; from the ModelZoo, or the shape stored in `folder` with weights to be restored."""
        backbone = self.encoder.backbone(folder, self.workers)
        self.model = backbone
        if backbone.stage is None or backbone.stage.is_last:
            self.model = PooledModel(backbone, self.target.num_outputs, self.config.model.dropout_rate)
        self.model(token_batch())
        return self.model

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns embeddings, encoder layers, and pooler with head: what is trained when all layers are frozen."""
        if isinstance(self.model, BertBackbone):
            return self.model.layer_groups()  # of a stage before the last
        *encoder, pooler = self.model.backbone.layer_groups()
        return [*encoder, [*pooler, *self.model.head.trainable_variables]]

    def input_columns(self) -> list[str]:
        """Returns the text columns."""
        data = self.config.data
        return [name for name in (data.first_sequence, data.second_sequence) if name]

    def encode(self, chunk: RowChunk, with_labels: bool) -> EncodedTable:
        """Tokenizes texts and reads labels; unknown labels and, with noTruncate, long texts are bad rows."""
        data = self.config.data
        tokens = self.encoder.encode(chunk, data.first_sequence, data.second_sequence)
        values = self.read_labels(chunk) if with_labels else []
        kept = np.flatnonzero(chunk.accepted)
        count_tokens(self.text_counts, tokens, kept)
        columns = {"input_ids": tokens.input_ids.take(kept), "segment_ids": tokens.segment_ids.take(kept)}
        if with_labels:
            columns["label_id"] = self.target.array([values[row] for row in kept])
        return EncodedTable(columns, masks={"input_mask": "input_ids"})

    def signatures(self, folder: Path) -> dict[str, Signature]:
        """Returns raw text (or a pair), token ids, and the tf.Example forms."""
        data, text = self.config.data, tf.TensorSpec([None], tf.string)
        tokenizer = self.encoder.graph(folder)
        samples = np.array(SAMPLE_TEXTS, object)

        def serve_text(text: tf.Tensor) -> dict[str, tf.Tensor]:
            return self.answer(self.model(tokenizer(text, None), training=False)["logits"])

        def serve_pair(text_a: tf.Tensor, text_b: tf.Tensor) -> dict[str, tf.Tensor]:
            return self.answer(self.model(tokenizer(text_a, text_b), training=False)["logits"])

        if not self.paired:
            raw = Signature(serve_text, {"text": text}, {"text": samples}, "raw text", tokenizer)
        else:
            pairs = {"text_a": samples, "text_b": samples[::-1].copy()}
            raw = Signature(serve_pair, dict.fromkeys(pairs, text), pairs, "raw text pairs", tokenizer)
        second = list(SAMPLE_TEXTS) if self.paired else None
        tokens = self.encoder.tokenizer.encode(list(SAMPLE_TEXTS), second, max_length=data.sequence_length)
        encoded = EncodedTable(
            {"input_ids": tokens.input_ids, "segment_ids": tokens.segment_ids}, masks={"input_mask": "input_ids"}
        )
        signatures = {"serving_default": raw, "predict_ids": ids_signature(self, encoded)}
        return {**signatures, **self.target.signatures(raw)}


class PooledModel(keras.Model):
    """Encoder, dropout on the pooled first token, dense layer.

    Args:
        backbone: Encoder.
        num_outputs: Classes, or 1 for a score.
        dropout_rate: Dropout before the dense layer.

    Call arguments:
        batch: `input_ids`, `input_mask`, `segment_ids`, each [batch, tokens].

    Returns:
        `logits` float32 [batch, num_outputs].
    """

    def __init__(self, backbone: BertBackbone, num_outputs: int, dropout_rate: float) -> None:
        super().__init__(name="text_classifier")
        self.backbone = backbone
        self.dropout = Dropout(dropout_rate, name="head_dropout")
        self.head = keras.layers.Dense(
            num_outputs,
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            dtype="float32",
            name="head",
        )

    def call(self, batch: dict[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """Returns `{"logits": [batch, num_outputs]}`."""
        pooled = self.backbone(batch, training=training, pooled_only=True)["pooled_output"]
        return {"logits": self.head(tf.cast(self.dropout(pooled, training=training), tf.float32))}
