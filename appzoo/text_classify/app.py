"""Text classification: classes, several labels at once, or a score; by a pre-trained encoder or by convolutions."""

from __future__ import annotations

from appzoo.pooled_app import PooledApp
from appzoo.text_classify.config import BertClassifyConfig, CnnClassifyConfig
from appzoo.words_app import Branch, WordsApp
from easytransfer.layers.text_cnn import TextCNNEncoder


class BertClassify(PooledApp):
    """A pre-trained encoder with a dense layer on its pooled first token; one text or a pair."""

    config: BertClassifyConfig


class CnnClassify(WordsApp):
    """Convolutions over the words of one text, the maximum over time, dropout, one dense layer (arXiv 1408.5882)."""

    config: CnnClassifyConfig

    def texts(self) -> dict[str, tuple[str, int]]:
        """Returns the one text column."""
        return {"": (self.config.data.first_sequence, self.config.data.sequence_length)}

    def branches(self) -> list[Branch]:
        """Returns the convolutions."""
        model = self.config.model
        encoder = TextCNNEncoder(model.num_filters, model.filter_sizes, name="encoder")
        return [Branch("cnn", encoder, model.dropout_rate)]


VARIANTS = {"bert": BertClassify, "cnn": CnnClassify}
