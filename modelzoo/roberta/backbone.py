"""RoBERTa: token ids to vectors."""

from __future__ import annotations

from easytransfer import keras
from modelzoo.encoder_backbone import EncoderBackbone
from modelzoo.roberta.convert import ROBERTA


@keras.utils.register_keras_serializable(package="easytransfer")
class RobertaBackbone(EncoderBackbone):
    """Turns token ids into vectors (Liu et al. 2019, arXiv 1907.11692); see `EncoderBackbone`.

    A BERT whose positions begin behind the id of the padding, counted over the tokens that `input_mask` shows (over ids
    that are no padding where the mask has three axes), and whose segments are all 0. Published files may lack the
    pooler, which then starts from random values.

    Example:
        >>> backbone = RobertaBackbone(RobertaConfig(vocab_size=100, hidden_size=32, num_attention_heads=4))
        >>> backbone({"input_ids": tf.ones([2, 8], tf.int32), "input_mask": tf.ones([2, 8], tf.int32)})
    """

    splits_over_workers = True
    family = ROBERTA


BACKBONE_CLASS = RobertaBackbone
