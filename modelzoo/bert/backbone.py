"""BERT: token ids to vectors."""

from __future__ import annotations

from easytransfer import keras
from modelzoo.bert.convert import BERT
from modelzoo.encoder_backbone import EncoderBackbone


@keras.utils.register_keras_serializable(package="easytransfer")
class BertBackbone(EncoderBackbone):
    """Turns token ids into vectors (Devlin et al. 2019, arXiv 1810.04805, section 3); see `EncoderBackbone`.

    Example:
        >>> backbone = BertBackbone(BertConfig(vocab_size=100, hidden_size=32, num_attention_heads=4))
        >>> backbone({"input_ids": tf.ones([2, 8], tf.int32), "input_mask": tf.ones([2, 8], tf.int32)})
    """

    splits_over_workers = True
    family = BERT


BACKBONE_CLASS = BertBackbone
