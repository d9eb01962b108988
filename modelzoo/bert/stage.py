"""The layers of an encoder that belong to one stage of a pipeline."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from official.nlp.modeling.networks.bert_encoder import BertEncoderV2

from easytransfer.distributed.pipeline import Stage
from easytransfer.errors import ConfigError


class StageEncoder(BertEncoderV2):
    """Embeddings on the first stage, a share of the layers on each, the pooler on the last.

    Variables have the names of the whole encoder's; layers of other stages have none.

    Args:
        stage: This worker's.
        num_layers: Layers of the whole encoder.
        **options: See `BertEncoderV2`.

    Call arguments:
        inputs: `input_word_ids`, `input_mask` and `input_type_ids`, integer [batch, tokens].

    Returns:
        On the last stage `pooled_output` [batch, hidden] and `encoder_outputs`, a list with the last layer's
        [batch, tokens, hidden]; on others `sent`, what `Stage.send` returned.

    Raises:
        ConfigError: There are more stages than layers.
    """

    def __init__(self, stage: Stage, num_layers: int, **options: Any) -> None:
        if stage.stages > num_layers:
            raise ConfigError(
                f"{num_layers} encoder layers cannot be cut into {stage.stages} stages",
                fix=f"set distribution.pipeline_stages to at most {num_layers}",
            )
        super().__init__(num_layers=num_layers, **options)
        self._stage = stage

    def call(self, inputs: dict[str, tf.Tensor]) -> dict[str, Any]:
        """See the class."""
        stage, ids = self._stage, inputs["input_word_ids"]
        if stage.is_first:
            words = inputs.get("input_word_embeddings")
            x = self._get_embeddings(ids, inputs["input_type_ids"], words, None, None)
            x = self._embedding_dropout(self._embedding_norm_layer(x))
        else:
            x = stage.receive(tf.concat([tf.shape(ids), [self._config["hidden_size"]]], 0))
            x = tf.ensure_shape(x, [*ids.shape, self._config["hidden_size"]])
        mask, depths = self._attention_mask_layer(x, inputs["input_mask"]), stage.share(self._num_layers)
        for depth in depths:
            rows = self._output_range if depth == self._num_layers - 1 else None
            x = self._transformer_layers[depth]([x, mask], output_range=rows)
        if not stage.is_last:
            return {"sent": stage.send(x)}
        return {"pooled_output": self._pooler_layer(x[:, 0]), "encoder_outputs": [x]}
