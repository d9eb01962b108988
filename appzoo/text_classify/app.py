"""Text classification: classes, several labels at once, or a score; by a pre-trained encoder or by convolutions."""

from __future__ import annotations

from appzoo.pooled_app import PooledApp
from appzoo.text_classify.config import BertClassifyConfig, CnnClassifyConfig
from appzoo.text_cnn_app import TextCnnApp


class BertClassify(PooledApp):
    """A pre-trained encoder with a dense layer on its pooled first token; one text or a pair."""

    config: BertClassifyConfig


class CnnClassify(TextCnnApp):
    """Convolutions over the words of one text, from random weights."""

    config: CnnClassifyConfig


VARIANTS = {"bert": BertClassify, "cnn": CnnClassify}
