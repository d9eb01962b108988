"""ALBERT: token ids to vectors, with one layer that is called again and again."""

from __future__ import annotations

from easytransfer import keras
from modelzoo.albert.convert import ALBERT
from modelzoo.encoder_backbone import EncoderBackbone


@keras.utils.register_keras_serializable(package="easytransfer")
class AlbertBackbone(EncoderBackbone):
    """Turns token ids into vectors (Lan et al. 2020, arXiv 1909.11942, section 3.1); see `EncoderBackbone`.

    Word, position and segment embeddings are narrower than the layers and are projected to their width behind the
    LayerNorm; all layers have the same weights. `layer_groups` has three: embeddings, the layer, the pooler.

    Example:
        >>> backbone = AlbertBackbone(AlbertConfig(vocab_size=100, hidden_size=256, num_attention_heads=4))
        >>> backbone({"input_ids": tf.ones([2, 8], tf.int32), "input_mask": tf.ones([2, 8], tf.int32)})
    """

    family = ALBERT


BACKBONE_CLASS = AlbertBackbone
